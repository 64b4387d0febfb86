"""Keys and values of prompts and answers, kept for later requests that begin alike.

A radix tree over token ids: a node holds the keys and values of the tokens on the edge that leads to it, so texts
that begin alike share what they have in common, and a text that diverges somewhere (a template that strips an
earlier thought, say) still finds everything before. Nodes are values: a request gets copies, and whatever is evicted
meanwhile, it keeps what it has.

Reuse must not change a bit. Where every row of every pass has bits of its own (`any_position`) it may begin anywhere.
Elsewhere a row that was read in a chunk of the prompt has the bits of that chunk's length, and prompts are read in
chunks that end at multiples of the step size: then only whole chunks are kept, and a request goes on where a chunk
begins, exactly as if it had read them itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import mlx.core as mx

from ..cache import CHUNK, KVCache
from .spill import Spill

Rows = list[mx.array]
"""Keys and values [1, G, n, D] of n tokens: layer 0's keys, layer 0's values, layer 1's keys, ..."""


class Node:
    """Tokens behind those of `parent`; `rows` is None while they are on disk alone."""

    __slots__ = ("children", "file", "parent", "rows", "tokens")

    def __init__(self, parent: Node | None, tokens: tuple[int, ...], rows: Rows | None, file: Path | None = None):
        self.parent, self.tokens, self.rows, self.file = parent, tokens, rows, file
        self.children: dict[int, Node] = {}

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self.rows or ())

    def path(self) -> tuple[int, ...]:
        """All tokens from the root on."""
        parts = []
        node: Node | None = self
        while node is not None:
            parts.append(node.tokens)
            node = node.parent
        return tuple(token for part in reversed(parts) for token in part)


class PrefixCache:
    """The tree. Not thread-safe: it belongs to the engine's thread, as all arrays do.

    Args:
        layers: the model's.
        limit: bytes of keys and values to keep in memory.
        step_size: tokens by which prompts are read.
        any_position: whether reuse may begin anywhere (see above).
        spill: where evicted nodes go; None drops them.

    Attributes:
        nbytes: bytes of keys and values in memory.
    """

    def __init__(self, layers: int, limit: int, *, step_size: int, any_position: bool, spill: Spill | None = None):
        self._layers, self.limit = layers, limit
        self._step, self._spill = 1 if any_position else step_size, spill
        self._root = Node(None, (), [])
        # Least recently used first. A path is touched from its end to the root, so a node is never older than the
        # nodes below it: the first one has none below it (in memory, or on disk).
        self._resident: OrderedDict[Node, None] = OrderedDict()
        self._filed: OrderedDict[Node, None] = OrderedDict()
        self.nbytes = 0
        if spill is not None:
            self._restore(spill)

    def __len__(self) -> int:
        """Nodes, on disk or not."""
        return sum(1 for _ in self._below(self._root))

    @property
    def disk_bytes(self) -> int:
        return self._spill.nbytes if self._spill else 0

    # Lookup -----------------------------------------------------------------------------------------

    def open(self, tokens: Sequence[int], most: int) -> KVCache:
        """A cache that holds as many leading `tokens` as are known, at most `most`; its own, to go on with."""
        cache = KVCache(self._layers)
        path = self._walk(tokens[:most])
        loaded = []
        for node, count in path:
            if node.rows is None and not self._load(node):
                break
            loaded.append((node, count))
        self._touch([node for node, _ in loaded])
        held = sum(count for _, count in loaded) // self._step * self._step
        if held:
            _fill(cache, loaded, held)
        self.shrink(self.limit)
        return cache

    def _walk(self, tokens: Sequence[int]) -> list[tuple[Node, int]]:
        """The nodes along `tokens`, each with how many of its tokens agree; only of the last one not all."""
        path: list[tuple[Node, int]] = []
        node, at = self._root, 0
        while at < len(tokens):
            child = node.children.get(tokens[at])
            if child is None:
                break
            count = _common(child.tokens, tokens, at)
            path.append((child, count))
            at += count
            if count < len(child.tokens):
                break
            node = child
        return path

    # Insertion --------------------------------------------------------------------------------------

    def insert(self, tokens: Sequence[int], cache: KVCache) -> None:
        """Keep the rows of `tokens`, which `cache` begins with. Only what is new is copied."""
        tokens = tuple(tokens[: len(tokens) // self._step * self._step])
        path = self._walk(tokens)
        known = sum(count for _, count in path)
        if known == len(tokens):
            self._touch([node for node, _ in path])
            return
        if path and path[-1][1] < len(path[-1][0].tokens):
            if path[-1][0].rows is None and not self._load(path[-1][0]):
                # What was on disk is gone, and what stood there with it.
                path = path[:-1]
                known = sum(count for _, count in path)
            else:
                path[-1] = (self._split(*path[-1]), path[-1][1])
        nodes = [node for node, _ in path]
        parent = nodes[-1] if nodes else self._root
        leaf = Node(parent, tokens[known:], _copied(cache.arrays, known, len(tokens)))
        parent.children[leaf.tokens[0]] = leaf
        self._hold(leaf)
        self._touch([*nodes, leaf])
        self.shrink(self.limit)

    def _split(self, node: Node, count: int) -> Node:
        """Cut `node` behind its first `count` tokens; returns the new node that holds these."""
        assert node.parent is not None and node.rows is not None
        self._forget_file(node)
        upper = Node(node.parent, node.tokens[:count], _copied(node.rows, 0, count))
        rest = _copied(node.rows, count, len(node.tokens))
        self.nbytes -= node.nbytes
        node.parent.children[upper.tokens[0]] = upper
        node.parent, node.tokens, node.rows = upper, node.tokens[count:], rest
        upper.children[node.tokens[0]] = node
        self.nbytes += node.nbytes
        self._hold(upper)
        return upper

    def _hold(self, node: Node) -> None:
        self._resident[node] = None
        self.nbytes += node.nbytes

    def _touch(self, path: Sequence[Node]) -> None:
        for node in reversed(path):
            for order in (self._resident, self._filed):
                if node in order:
                    order.move_to_end(node)

    # Eviction ---------------------------------------------------------------------------------------

    def shrink(self, most: int) -> None:
        """Evict the least recently used until no more than `most` bytes are held in memory."""
        while self.nbytes > most:
            node = next(iter(self._resident))
            del self._resident[node]
            self.nbytes -= node.nbytes
            if self._file(node):
                node.rows = None
            else:
                self._remove(node)

    def close(self) -> None:
        """Write what is in memory to the disk, where there is a place for it."""
        if self._spill is None:
            return
        for node in list(self._resident):
            if node.rows is not None:
                self._file(node)

    def _file(self, node: Node) -> bool:
        """See that `node` is on disk too."""
        if self._spill is None:
            return False
        if node.file is None:
            assert node.rows is not None
            node.file = self._spill.write(node.path(), len(node.tokens), node.rows)
            if node.file is None:
                return False
            self._filed[node] = None
        while self._spill.nbytes > self._spill.limit:
            oldest = next(iter(self._filed))
            self._forget_file(oldest)
            if oldest.rows is None and oldest is not node:
                self._remove(oldest)
        return node.file is not None

    def _forget_file(self, node: Node) -> None:
        if node.file is not None and self._spill is not None:
            self._spill.remove(node.file)
            node.file = None
            self._filed.pop(node, None)

    def _load(self, node: Node) -> bool:
        """Read `node` back from the disk; a file that is not what was written is removed, with all that needs it."""
        assert self._spill is not None and node.file is not None
        rows = self._spill.read(node.file, node.path(), len(node.tokens))
        if rows is None:
            self._remove(node)
            return False
        node.rows = rows
        self._hold(node)
        return True

    def _remove(self, node: Node) -> None:
        """Take `node` and everything below it out of the tree."""
        assert node.parent is not None
        for lost in [node, *self._below(node)]:
            self._forget_file(lost)
            if lost in self._resident:
                del self._resident[lost]
                self.nbytes -= lost.nbytes
        del node.parent.children[node.tokens[0]]

    def _below(self, node: Node) -> Iterator[Node]:
        """Every node below `node`, parents first."""
        waiting = list(node.children.values())
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.children.values()

    def _restore(self, spill: Spill) -> None:
        """Take up what an earlier run left on disk, parents first."""
        for file, tokens, count in sorted(spill.found(), key=lambda entry: len(entry[1])):
            path = self._walk(tokens)
            start = len(tokens) - count
            parent = path[-1][0] if path else self._root
            whole = sum(len(node.tokens) for node, _ in path) == sum(n for _, n in path) == start
            if not whole or tokens[start] in parent.children:
                spill.remove(file)
                continue
            node = Node(parent, tokens[start:], None, file)
            parent.children[tokens[start]] = node
            self._filed[node] = None
            self._touch([*(node for node, _ in path), node])


def _common(edge: Sequence[int], tokens: Sequence[int], at: int) -> int:
    """How many leading tokens of `edge` stand in `tokens` from `at` on."""
    most = min(len(edge), len(tokens) - at)
    for i in range(most):
        if edge[i] != tokens[at + i]:
            return i
    return most


def _copied(arrays: Sequence[mx.array], start: int, stop: int) -> Rows:
    """Rows start..stop-1 of arrays [1, G, n, D] in memory of their own: a slice would keep all of it alive."""
    index = mx.arange(start, stop)
    rows = [mx.take(a, index, axis=2) for a in arrays]
    mx.eval(rows)
    return rows


def _fill(cache: KVCache, path: Sequence[tuple[Node, int]], held: int) -> None:
    """Put the first `held` rows of `path` into an empty cache."""
    capacity = -(-held // CHUNK) * CHUNK
    for i, layer in enumerate(cache.layers):
        both = []
        for part in (2 * i, 2 * i + 1):
            pieces, missing = [], held
            for node, count in path:
                assert node.rows is not None
                pieces.append(node.rows[part][:, :, : min(count, missing)])
                missing -= pieces[-1].shape[2]
            shape = (*pieces[0].shape[:2], capacity - held, pieces[0].shape[3])
            both.append(mx.concatenate([*pieces, mx.zeros(shape, pieces[0].dtype)], axis=2))
        layer.keys, layer.values = both
    cache.offset = held
    # Now, not when the cache is first used: until then the pieces would have a second owner.
    mx.eval(cache.arrays)
