"""The graph that circuits are found in; the model declares it (`interp.models.graph`)."""

from interp.models.graph import Edge, Graph, Reader, ReaderKind, Writer, WriterKind

__all__ = ["Edge", "Graph", "Reader", "ReaderKind", "Writer", "WriterKind"]
