"""Pages: documents and run cards made from rows, with their drawings."""
