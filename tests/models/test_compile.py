"""torch.compile takes every variant in one graph, and computes the same."""

import shutil
from dataclasses import replace

import pytest
import torch

from interp.models import build_model


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_one_graph_without_breaks(case):
    shifts = (
        case.model.cfg.index_table_size > 0 or case.model.cfg.position_range > 0
    )  # then train mode computes something else
    for training in (False, True) if shifts else (False,):
        model = build_model(replace(case.model.cfg, n_layers=1)).train(training)
        graphs = []

        def count(graph, inputs, graphs=graphs):
            graphs.append(graph)
            return graph.forward

        compiled = torch.compile(model, backend=count, fullgraph=True)  # raises at a break
        torch.testing.assert_close(compiled(case.tokens), model(case.tokens))
        compiled(case.tokens + 0)
        assert len(graphs) == 1
        torch._dynamo.reset()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on the CPU needs a C++ compiler")
@torch.no_grad()
def test_compiled_code_gives_the_same_logits(cases):
    cfg = replace(cases["transformer-llama"], n_layers=1)
    model = build_model(cfg).eval()
    tokens = torch.randint(cfg.d_vocab, (3, cfg.n_ctx), generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(tokens), model(tokens), atol=1e-5, rtol=1e-5)
