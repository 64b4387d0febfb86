"""The embedded demo checkpoint (see demo/README.md, its model card)."""
