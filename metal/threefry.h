// The counter-based random bits of mx.random, and Gumbel noise from them.
//
// Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). For one key
// and V values mx.random hashes the counters (i, h + i) for i < V / 2, h = V - V / 2, into values i and h + i; with V
// odd, the middle value is the first word of the hash of (V / 2, 0).

METAL_FUNC uint2 threefry(uint2 key, uint2 counter) {
  const uint parity = key.x ^ key.y ^ 0x1BD11BDAu;
  const uint keys[3] = {key.x, key.y, parity};
  const uint rotations[8] = {13, 15, 26, 6, 17, 29, 16, 24};
  uint x = counter.x + keys[0];
  uint y = counter.y + keys[1];
#pragma unroll
  for (int round = 0; round < 5; ++round) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint by = rotations[round % 2 * 4 + i];
      x += y;
      y = ((y << by) | (y >> (32 - by))) ^ x;
    }
    x += keys[(round + 1) % 3];
    y += keys[(round + 2) % 3] + uint(round + 1);
  }
  return uint2(x, y);
}

// What mx.random.uniform makes of 32 bits: below 1, but 0 can happen.
METAL_FUNC float unit_interval(uint bits) {
  return min(float(bits) / 4294967296.0f, 0.99999994f);
}

// Gumbel noise; -inf where the uniform is 0, so that this token is never chosen.
METAL_FUNC float gumbel(uint bits) {
  return -log(-log(unit_interval(bits)));
}
