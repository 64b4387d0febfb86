  // Cache and block in mlx-lm's quantised form: words [1, G, rows, D * BITS / 32], scales and biases
  // [1, G, rows, D / GROUP].
  const int capacity = keys_shape[2];
  const int L = q_shape[2];
  const int G = keys_shape[1];
  const int g = threadgroup_position_in_grid.y;
  typedef float Value;
  typedef QuantizedRows<decltype(key_scales), D, BITS, GROUP> CachedRows;
  typedef QuantizedRows<decltype(block_key_scales), D, BITS, GROUP> OwnRows;
  const size_t cached_first = size_t(g) * capacity * D;
  const size_t own_first = size_t(g) * L * D;
  const CachedRows cached_keys = {keys + cached_first * BITS / 32, key_scales + cached_first / GROUP,
                                  key_biases + cached_first / GROUP};
  const CachedRows cached_values = {values + cached_first * BITS / 32, value_scales + cached_first / GROUP,
                                    value_biases + cached_first / GROUP};
  const OwnRows own_keys = {block_keys + own_first * BITS / 32, block_key_scales + own_first / GROUP,
                            block_key_biases + own_first / GROUP};
  const OwnRows own_values = {block_values + own_first * BITS / 32, block_value_scales + own_first / GROUP,
                              block_value_biases + own_first / GROUP};
