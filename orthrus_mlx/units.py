"""Numbers as people read them."""


def counted(count: int, noun: str) -> str:
    """ "1 token", "2 tokens"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def byte_count(count: int) -> str:
    """A number of bytes as "1.23 GB", "45.60 kB" or "789 bytes"; powers of ten."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} bytes"
