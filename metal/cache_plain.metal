  // Cache and block as they are: keys, values [1, G, capacity, D]; block_keys, block_values [1, G, L, D], type T.
  const int capacity = keys_shape[2];
  const int L = q_shape[2];
  const int G = keys_shape[1];
  const int g = threadgroup_position_in_grid.y;
  typedef T Value;
  typedef PlainRows<T, D> Rows;
  const Rows cached_keys = {keys + size_t(g) * capacity * D};
  const Rows cached_values = {values + size_t(g) * capacity * D};
  const Rows own_keys = {block_keys + size_t(g) * L * D};
  const Rows own_values = {block_values + size_t(g) * L * D};
