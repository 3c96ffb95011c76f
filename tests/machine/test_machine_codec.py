"""Tokens: round trips, the layout, files of the original project, and a plain sentence for every malformed token."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cython_vm import MachineSpec, States, decode, encode, read_original, sample, step, write_original

DATA = Path(__file__).parent / "data"
SPEC = MachineSpec(n_instructions=5, n_cells=3, n_input=2, n_output=2, bits=2)


@settings(max_examples=60, deadline=None)
@given(
    n_instructions=st.sampled_from([1, 2, 5, 15, 64, 256]),
    n_cells=st.sampled_from([1, 3, 10, 64, 256]),
    buffers=st.sampled_from([0, 1, 5, 255]),
    bits=st.integers(1, 8),
    io=st.booleans(),
    loops=st.booleans(),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([np.uint16, np.int16, np.int32, np.uint32, np.int64, np.uint64]),
)
def test_round_trip(n_instructions, n_cells, buffers, bits, io, loops, seed, dtype):
    spec = MachineSpec(n_instructions, n_cells, buffers, 5, bits=bits, io=io, loops=loops)
    states = sample(spec, 5, seed=seed)
    tokens = encode(states)
    assert tokens.shape == (5, spec.state_length)
    assert tokens.dtype == (np.uint8 if spec.d_vocab <= 256 else np.uint16)
    assert decode(spec, tokens.astype(dtype)) == states
    assert decode(spec, np.asfortranarray(tokens)[::-1]) == states[::-1]


def test_tokens_by_hand():
    states = States.build(SPEC, program="[-]", instruction_ptr=2, array_ptr=1, cells=[0, 3, 1], input=[2])
    words = "{ [ 0 0 1 0 0 ] [ WHILE DEC ENDW STOP STOP ] [ 0 1 0 ] [ NUM_0 NUM_3 NUM_1 ] [ NUM_2 EOI ] [ EOO EOO ] }"
    assert " ".join(SPEC.vocab[token] for token in encode(states)[0]) == words


def test_default_sizes_are_those_of_the_original():
    spec = MachineSpec()
    assert (spec.state_length, spec.d_vocab) == (74, 33)
    assert spec.layout.name(41) == "array_ptr[5]"
    assert spec.layout.slice("cells") == slice(48, 58)
    assert spec.layout.position("cells", 3) == 51
    assert spec.layout.index("cells[3]") == 51
    assert [spec.layout.name(p) for p in (0, 1, 17, 73)] == ["{", "instruction_ptr.[", "instruction_ptr.]", "}"]


def test_roles_and_indices_tell_every_position_apart():
    layout = SPEC.layout
    assert len(set(zip(layout.roles.tolist(), layout.indices.tolist(), strict=True))) == layout.length
    assert layout.roles.max() == layout.n_roles - 1
    assert layout.indices.max() == layout.max_index == 4
    assert layout.indices[layout.slice("instructions")].tolist() == [0, 1, 2, 3, 4]
    for name in layout.names:
        assert layout.name(layout.index(name)) == name
    with pytest.raises(ValueError, match="no block 'tape'"):
        layout.slice("tape")
    with pytest.raises(ValueError, match="cells has 3 slots"):
        layout.position("cells", 3)
    with pytest.raises(ValueError, match="no position is named"):
        layout.index("cells[9]")
    with pytest.raises(ValueError, match="positions, numbered from 0; got 99"):
        layout.name(99)


# (position, the token put there, what the message says)
FAULTS = {
    "brace": ("{", "[", r"position 0 \(\{\): another token belongs here, got '\['"),
    "last brace": ("}", "EOO", "another token belongs here, got 'EOO'"),
    "bracket": ("cells.]", "NUM_0", r"\(cells\.\]\): another token belongs here, got 'NUM_0'"),
    "bit": ("instruction_ptr[1]", "NUM_1", "a pointer's block holds only 0 and 1, got 'NUM_1'"),
    "no pointer": ("array_ptr[1]", "0", r"\(array_ptr\[0\]\): the pointer's block holds no 1"),
    "two pointers": ("array_ptr[2]", "1", r"\(array_ptr\[2\]\): the pointer's block holds a second 1"),
    "opcode": ("instructions[1]", "NUM_1", "an opcode of this machine belongs here, got 'NUM_1'"),
    "last STOP": ("instructions[4]", "INC", "the last instruction must be STOP, got 'INC'"),
    "ENDW alone": ("instructions[0]", "INC", r"\(instructions\[2\]\): ENDW without a WHILE before it"),
    "WHILE alone": ("instructions[2]", "INC", r"\(instructions\[0\]\): WHILE without an ENDW after it"),
    "cell": ("cells[1]", "EOI", "a number belongs here, got 'EOI'"),
    "input": ("input[1]", "EOO", "a number or the buffer's padding belongs here, got 'EOO'"),
    "output": ("output[1]", "EOI", "a number or the buffer's padding belongs here, got 'EOI'"),
    "gap": ("input[0]", "EOI", r"\(input\[1\]\): a number after the buffer's padding, got 'NUM_2'"),
}


@pytest.mark.parametrize(("position", "token", "message"), FAULTS.values(), ids=FAULTS)
def test_malformed_tokens_are_named(position, token, message):
    good = States.build(SPEC, program="[-]", array_ptr=1, cells=[0, 3, 1], input=[2, 2], output=[1])
    tokens = encode(good[[0, 0, 0]])
    tokens[1, SPEC.layout.index(position)] = SPEC.token_id(token)
    with pytest.raises(ValueError, match=f"row 1, .*{message}"):
        decode(SPEC, tokens)


@pytest.mark.parametrize("bad", [-1, 33, 2**31, 2**40 + 2, -(2**40) + 2])
def test_ids_out_of_range_do_not_wrap(bad):
    tokens = encode(sample(SPEC, 3, seed=0)).astype(np.int64)
    tokens[2, 1] = bad
    with pytest.raises(ValueError, match=f"row 2, position 1 .* got 'id {bad}'"):
        decode(SPEC, tokens)


def test_stop_before_the_end_needs_stops():
    tokens = encode(States.build(SPEC, program="+ STOP ++"))
    with pytest.raises(ValueError, match=r"\(instructions\[1\]\): with stops=False only the last instruction is STOP"):
        decode(MachineSpec(5, 3, 2, 2, bits=2, stops=False), tokens)


def test_decode_refuses_other_shapes_and_types():
    with pytest.raises(ValueError, match=r"tokens must be \[n, 34\] for this machine, got \[3, 74\]"):
        decode(SPEC, np.zeros((3, 74), dtype=int))
    with pytest.raises(ValueError, match=r"got \[34\]"):
        decode(SPEC, encode(sample(SPEC, 1, seed=0))[0])
    with pytest.raises(TypeError, match="integers, got float64"):
        decode(SPEC, np.zeros((1, 34)))


def test_file_of_the_original_project(tmp_path):
    states, after = read_original(DATA / "original.npy")
    assert len(states) == 20
    assert step(states).next == after
    assert len(np.unique(step(states).outcome)) >= 7
    write_original(tmp_path / "again.npy", states)
    assert np.array_equal(np.load(tmp_path / "again.npy"), np.load(DATA / "original.npy"))
    again, meta = (json.loads(path.read_text()) for path in (tmp_path / "again.meta.json", DATA / "original.meta.json"))
    assert again == meta | {"output_npy_file": "./again.npy"}


def test_broken_files_are_named(tmp_path):
    path = tmp_path / "x.npy"
    with pytest.raises(FileNotFoundError):
        read_original(path)
    write_original(path, sample(SPEC, 2, seed=0))
    meta = json.loads((tmp_path / "x.meta.json").read_text())
    (tmp_path / "x.meta.json").write_text(json.dumps(meta | {"id_to_token": meta["id_to_token"][::-1]}))
    with pytest.raises(ValueError, match="lists other tokens"):
        read_original(path)
    (tmp_path / "x.meta.json").write_text(json.dumps(meta | {"program_params": {}}))
    with pytest.raises(ValueError, match="does not describe a machine"):
        read_original(path)
    (tmp_path / "x.meta.json").write_text(json.dumps(meta))
    np.save(path, np.zeros((2, 9), dtype=np.int32))
    with pytest.raises(ValueError, match=r"should hold \[n, 68\] tokens, got \[2, 9\]"):
        read_original(path)
    with pytest.raises(ValueError, match=r"must end in \.npy"):
        read_original(tmp_path / "x.txt")


def test_no_states_are_fine():
    empty = sample(SPEC, 0, seed=0)
    assert len(decode(SPEC, encode(empty))) == 0
    assert len(step(empty).next) == len(step(empty, {"op": 1, "cell[0]": 1, "next_cell[0]": []}).next) == 0
