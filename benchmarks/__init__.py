"""Speed against named peers, behind `tapelens bench`."""
