// Rule A, first half: the best of logits[r, v] / T + noise(key[r], v) in each piece of the vocabulary.
//
// Tiling: a threadgroup takes one row and 256 * PAIRS pairs (v, h + v), h = V - V / 2, the pairs that one threefry
// hash gives noise for. With NOISE off (greedy) the same walk compares bare logits.
// Bytes read per pass: each logit once. Arithmetic: one hash (about 110 integer operations) per two logits.
// The best is the largest value and, of equals, the lowest index: a choice that no order of comparing can change,
// so it depends on neither the tiling nor the number of rows. A NaN never wins.
  threadgroup float best_values[8];
  threadgroup uint best_tokens[8];

  const int V = logits_shape[1];
  const int row = threadgroup_position_in_grid.y;
  const int piece = threadgroup_position_in_grid.x;
  const int half_size = V / 2;
  const int other = V - half_size;
  const uint2 key = NOISE ? uint2(keys[2 * row], keys[2 * row + 1]) : uint2(0u);
  const float factor = inverse_temperature[0];
  const device T* row_logits = logits + size_t(row) * V;

  float value = -INFINITY;
  uint token = 0xFFFFFFFFu;
  for (int i = 0; i < PAIRS; ++i) {
    const int first = (piece * PAIRS + i) * 256 + int(thread_index_in_threadgroup);
    if (first < other) {
      // the middle value of an odd vocabulary has no partner, and counter (V / 2, 0)
      const bool paired = first < half_size;
      const uint2 bits = NOISE ? threefry(key, uint2(first, paired ? other + first : 0)) : uint2(0u);
      const float score = NOISE ? float(row_logits[first]) * factor + gumbel(bits.x) : float(row_logits[first]);
      if (better(score, uint(first), value, token)) {
        value = score;
        token = uint(first);
      }
      if (paired) {
        const int second = other + first;
        const float partner = NOISE ? float(row_logits[second]) * factor + gumbel(bits.y) : float(row_logits[second]);
        if (better(partner, uint(second), value, token)) {
          value = partner;
          token = uint(second);
        }
      }
    }
  }

  best_of_lanes(value, token);
  if (thread_index_in_simdgroup == 0) {
    best_values[simdgroup_index_in_threadgroup] = value;
    best_tokens[simdgroup_index_in_threadgroup] = token;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (thread_index_in_threadgroup == 0) {
    for (int i = 1; i < 8; ++i) {
      if (better(best_values[i], best_tokens[i], value, token)) {
        value = best_values[i];
        token = best_tokens[i];
      }
    }
    const int at = row * int(threadgroups_per_grid.x) + piece;
    values[at] = value;
    tokens[at] = token;
  }
