// Rule A, second half: the best of a row's pieces. One simdgroup per row.
  const int pieces = values_shape[1];
  const int row = threadgroup_position_in_grid.x;

  float value = -INFINITY;
  uint token = 0xFFFFFFFFu;
  for (int i = thread_index_in_simdgroup; i < pieces; i += 32) {
    const int at = row * pieces + i;
    if (better(values[at], tokens[at], value, token)) {
      value = values[at];
      token = tokens[at];
    }
  }
  best_of_lanes(value, token);
  if (thread_index_in_simdgroup == 0) {
    chosen[row] = token == 0xFFFFFFFFu ? 0u : token;
  }
