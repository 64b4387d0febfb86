// Verification: from the root of a draft tree, walk to the child that holds the token chosen at this node, while
// there is one. A chain is the tree in which row i - 1 is the parent of row i.
//
// One thread; at most 32 nodes, each looked at once because parents come before children. path lists the accepted
// nodes from the root on, then -1. (The guard is there because MLX 0.32.4 prints a broken signature for a kernel with
// two outputs that uses no built-in index.)
  if (thread_index_in_threadgroup != 0) {
    return;
  }
  const int rows = chosen_shape[0];
  int node = 0;
  int accepted = 1;
  path[0] = 0;
  for (int i = 1; i < rows; ++i) {
    if (parents[i] == node && tokens[i] == chosen[node]) {
      node = i;
      path[accepted] = i;
      ++accepted;
    }
  }
  for (int i = accepted; i < rows; ++i) {
    path[i] = -1;
  }
  count[0] = accepted;
