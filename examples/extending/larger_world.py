"""A world: two numbers, which of them is larger, and the larger one."""

import numpy as np

from interp.worlds import WORLDS, Rows, RowsAnswer, Strata, Variable, World, hash_rows, pick


class Larger(World):
    """Two numbers from 0 to `size` - 1 that differ. A variable that is set keeps all but what follows from it."""

    name, unit, stratum_title = "larger", "pair", "order"
    stratum_names = ("FIRST", "SECOND")
    capabilities = frozenset({"do", "edit"})

    def __init__(self, size: int = 24):
        self.size = size
        self.pairs = Rows(np.array([(a, b) for a in range(size) for b in range(size) if a != b]))

    def to_dict(self):
        return {"size": self.size}

    def variables(self):
        both, n = ("first", "second"), self.size
        return {
            "first": Variable("first", "first", "root", (), n, "first[0]", True, "given"),
            "second": Variable("second", "second", "root", (), n, "second[0]", True, "given"),
            "which": Variable("which", "which", "decide", both, 2, None, True, "1 if second > first, else 0"),
            "larger": Variable(
                "larger", "larger", "result", (*both, "which"), n, None, True, "the one that which says"
            ),
        }

    def draw(self, n, *, seed, start=0, split="evaluation", weights=None):
        return pick(self.pairs, self.groups(self.pairs), n, seed=seed, start=start, split=split)

    def read(self, examples, name, at=0):
        self.variable(name)  # raises, with close names, where there is none
        first, second = examples.values.T
        return {"first": first, "second": second, "which": (second > first) * 1}.get(name, np.maximum(first, second))

    def answer(self, examples, do=None, at=0):
        set_to = do or {}
        first, second = (set_to.get(name, self.read(examples, name)) for name in ("first", "second"))
        larger = np.where(set_to.get("which", second > first), second, first)
        larger = np.asarray(set_to.get("larger", larger), dtype=np.int64)
        return RowsAnswer(larger[:, None], larger >= 0)

    def edit(self, examples, name, values):
        return examples.with_column(("first", "second").index(name), values)

    def groups(self, examples):
        return hash_rows(examples.values)

    def strata(self, examples):
        return Strata(self.stratum_title, self.stratum_names, self.read(examples, "which"))


WORLDS["larger"] = Larger
