// Comparing candidates of an argmax: the larger value wins, of equals the lower index.

METAL_FUNC bool better(float value, uint token, float than_value, uint than_token) {
  return value > than_value || (value == than_value && token < than_token);
}

// The best candidate of a simdgroup, in every lane.
METAL_FUNC void best_of_lanes(thread float& value, thread uint& token) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const float other_value = simd_shuffle_xor(value, ushort(step));
    const uint other_token = simd_shuffle_xor(token, ushort(step));
    if (better(other_value, other_token, value, token)) {
      value = other_value;
      token = other_token;
    }
  }
}
