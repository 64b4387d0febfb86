// Attention of a block over the cache. Four warps, a team, take a chunk of the keys, one key/value head, one path of
// the block and 16 of its query rows; of each 128 keys a warp takes 32.
//
// Keys stand at absolute positions in chunks, warps and tiles, a key that a row may not see adds exact zeros, and
// pieces are joined in ascending order: a row's bits depend on its query and the keys that it sees, nothing else.
//
// paths [P, S]: the block's rows on each path from the root, -1 behind its end; position offset + i on a path holds the
// cache's row offset + paths[p][i]. A query row is (head of the group, i). Rows on several paths get the same bits.

// Chunks of 128 keys, of 256 from position 4,096 on and of 512 from 8,192 on: many for a short context, which few
// thread blocks would read slowly, and not too many to join for a long one.
__device__ inline int chunk_start(int chunk) {
  return chunk < 32 ? 128 * chunk : chunk < 48 ? 4096 + 256 * (chunk - 32) : 8192 + 512 * (chunk - 48);
}
__device__ inline int chunks_for(int keys) {
  return keys <= 4096 ? (keys + 127) / 128
      : keys <= 8192  ? 32 + (keys - 4096 + 255) / 256
                      : 48 + (keys - 8192 + 511) / 512;
}

// Divides by one number often: the device has no instruction for it. Right while n * by < 2^32.
struct Divisor {
  int by;
  unsigned inverse;

  __device__ explicit Divisor(int by) : by(by), inverse(0xffffffffu / by) {}
  __device__ int quotient(int n) const { return static_cast<unsigned long long>(n + 1) * inverse >> 32; }
  __device__ int remainder(int n) const { return n - quotient(n) * by; }
};

// What all teams work on.
template <typename T>
struct Attended {
  const T* queries;  // [H, L, D]
  const T* keys;     // [G, capacity, D]
  const T* values;
  const int* paths;
  int P, S, L, capacity, prefix, chunks;
  float scale;  // times log2(e)
  bool causal;
  float *sums, *peaks, *masses;  // [P, G, chunks, rows, D] and without D
  T* y;                          // [L, H D]
};

// 16 query rows, and where each stands in its block and on its path.
struct Queries {
  uint4 vectors[16][20];  // 16 at most, four apart from the next row's: no two lanes meet in a bank
  int nodes[16], steps[16];
};
struct Team {
  Queries queries[2];  // of two units in turn
  float piece[4][16][128 + 4];
  float peaks[4][16], masses[4][16];
};

// A lane's pieces of a warp's 32 keys, read ahead if they are all of the prefix; else zeros, so that no registers are
// held for the keys before.
template <typename T, int D>
struct Keys {
  uint4 pieces[4][D / 32];

  __device__ void read(const T* first, bool of_prefix) {
    if (!of_prefix) {
      *this = {};
      return;
    }
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < 4; n++) {
#pragma unroll
      for (int i = 0; i < D / 32; i++) {
        pieces[n][i] = load_8(first + (8 * n + lane / 4) * D + 32 * i + 8 * (lane % 4), true);
      }
    }
  }
};

// A team's units: all chunks of all paths and heads, the longest first.
template <typename T, int REPEATS, int G, int D>
struct Units {
  const Attended<T>& all;
  Divisor groups, paths, steps;
  int count, unit;

  __device__ explicit Units(const Attended<T>& all)
      : all(all), groups((REPEATS * all.S + 15) / 16), paths(all.P), steps(all.S),
        count(all.P * G * all.chunks * groups.by) {
    const int team = threadIdx.x / 128;
    // Two groups of query rows read the same keys: the teams of one thread block take them. Else units are spread.
    unit = groups.by > 1 ? 2 * blockIdx.x + team : blockIdx.x + gridDim.x * team;
  }
  __device__ int group() const { return groups.remainder(unit); }
  __device__ int head() const { return groups.quotient(unit) % G; }
  __device__ int path() const { return paths.remainder(groups.quotient(unit) / G); }
  __device__ int chunk() const { return all.chunks - 1 - paths.quotient(groups.quotient(unit) / G); }
  __device__ bool there() const { return unit < count; }
  __device__ void next() { unit += 2 * gridDim.x; }

  // Has the unit's keys and values brought nearer.
  __device__ void prefetch_cache() const {
    if (there() && threadIdx.x % 128 == 32) {
      const int start = chunk_start(chunk()), stop = min(chunk_start(chunk() + 1), all.prefix);
      const long long first = ((long long)head() * all.capacity + start) * D;
      if (start < stop) {
        prefetch(reinterpret_cast<const char*>(all.keys + first), (stop - start) * D * sizeof(T));
        prefetch(reinterpret_cast<const char*>(all.values + first), (stop - start) * D * sizeof(T));
      }
    }
  }

  // Reads the warp's first keys, if all are of the prefix.
  __device__ void read_keys(Keys<T, D>& keys) const {
    const int base = chunk_start(chunk()) + 32 * (threadIdx.x / 32 % 4);
    keys.read(all.keys + ((long long)head() * all.capacity + base) * D, there() && base + 32 <= all.prefix);
  }

  // Starts to copy the queries, a warp 32 dimensions.
  __device__ void copy_queries(Queries& queries) const {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const int g = lane / 4, t = lane % 4;
    if (there() && warp < D / 32) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        const int row = 16 * group() + g + 8 * r, repeat = steps.quotient(row), step = steps.remainder(row);
        const int node = repeat < REPEATS ? all.paths[path() * all.S + step] : -1;
        if (warp == 0 && t == 0) {
          queries.nodes[g + 8 * r] = node;
          queries.steps[g + 8 * r] = step;
        }
        uint4* to = &queries.vectors[g + 8 * r][4 * warp + t];
        if (node >= 0) {
          const long long query = (long long)(head() * REPEATS + repeat) * all.L + node;
          start_copy<16>(to, all.queries + query * D + 32 * warp + 8 * t);
        } else {
          *to = make_uint4(0, 0, 0, 0);
        }
      }
    }
    end_copies();
  }
};

// The unit's sums, peaks and masses; y itself where there is one chunk. `keys` holds its first keys on entry and the
// next unit's on return, which are read behind the last values; the next one's queries are copied from the start.
template <typename T, int REPEATS, int G, int D>
__device__ void attend(
    const Units<T, REPEATS, G, D>& unit, const Units<T, REPEATS, G, D>& next, Keys<T, D>& keys, Team& team, int turn) {
  constexpr int STEPS = D / 32, HALVES = D / 64;
  const Attended<T>& all = unit.all;
  const int path = unit.path(), head = unit.head(), chunk = unit.chunk(), group = unit.group();
  const int S = all.S, rows = REPEATS * S, prefix = all.prefix, end = prefix + S;
  const int thread = threadIdx.x % 128, lane = thread % 32, warp = thread / 32;
  const int g = lane / 4, t = lane % 4;
  const int* nodes = all.paths + path * S;
  const T* key_rows = all.keys + (long long)head * all.capacity * D;
  const T* value_rows = all.values + (long long)head * all.capacity * D;
  auto cache_row = [&](int position) {
    return position < prefix ? position : position < end && nodes[position - prefix] >= 0
        ? prefix + nodes[position - prefix]
        : -1;
  };

  const Queries& queries = team.queries[turn];
  const int step[2] = {queries.steps[g], queries.steps[g + 8]};
  next.copy_queries(team.queries[1 - turn]);

  float peak[2] = {-INFINITY, -INFINITY}, mass[2] = {0, 0};
  // Column c of tile (half, j) is dimension 64 half + 8 c + j.
  float sums[HALVES][8][4] = {};
  const int stop = min(chunk_start(chunk + 1), end);
  for (int base = chunk_start(chunk) + 32 * warp; base < stop; base += 128) {
    // Scores of 32 keys, read ahead or all at once
    const bool prefix_only = base + 32 <= prefix;
    if (!prefix_only) {
#pragma unroll
      for (int n = 0; n < 4; n++) {
        const int from = cache_row(base + 8 * n + g);
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
          keys.pieces[n][i] = load_8(key_rows + (long long)from * D + 32 * i + 8 * t, from >= 0);
        }
      }
    }
    float scores[4][4] = {};
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
#pragma unroll
      for (int n = 0; n < 4; n++) {
        multiply_32<T>(scores[n], queries.vectors[g][4 * i + t], queries.vectors[g + 8][4 * i + t], keys.pieces[n][i]);
      }
    }

    // Read all of their values while the softmax is found
    uint4 value[2][4][HALVES];
    if (prefix_only) {
      const T* first = value_rows + (long long)(base + 2 * t) * D + 8 * g;
#pragma unroll
      for (int n = 0; n < 8; n++) {
#pragma unroll
        for (int half = 0; half < HALVES; half++) {
          value[n / 4][n % 4][half] = load_8(first + (n % 2 + 8 * (n / 2)) * D + 64 * half, true);
        }
      }
    } else {
#pragma unroll
      for (int n = 0; n < 8; n++) {
        const int from = cache_row(base + 2 * t + n % 2 + 8 * (n / 2));
#pragma unroll
        for (int half = 0; half < HALVES; half++) {
          value[n / 4][n % 4][half] = load_8(value_rows + (long long)from * D + 64 * half + 8 * g, from >= 0);
        }
      }
    }

    // Softmax over them and those before
    float top[2] = {peak[0], peak[1]}, factor[2];
#pragma unroll
    for (int n = 0; n < 4; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        scores[n][i] = __fmul_rn(scores[n][i], all.scale);
      }
    }
    if (!prefix_only) {
#pragma unroll
      for (int n = 0; n < 4; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int position = base + 8 * n + 2 * t + i % 2;
          const bool seen = position < prefix || (all.causal ? position - prefix <= step[i / 2] : position < end);
          scores[n][i] = seen ? scores[n][i] : -INFINITY;
        }
      }
    }
#pragma unroll
    for (int n = 0; n < 4; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        top[i / 2] = fmaxf(top[i / 2], scores[n][i]);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 1));
      top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 2));
      factor[r] = peak[r] == -INFINITY ? 0.0f : exp2f(peak[r] - top[r]);
      peak[r] = top[r];
#pragma unroll
      for (int half = 0; half < HALVES; half++) {
#pragma unroll
        for (int j = 0; j < 8; j++) {
          sums[half][j][2 * r] *= factor[r];
          sums[half][j][2 * r + 1] *= factor[r];
        }
      }
    }
    float more[2] = {0, 0};
#pragma unroll
    for (int n = 0; n < 4; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        scores[n][i] = peak[i / 2] == -INFINITY ? 0.0f : exp2f(scores[n][i] - peak[i / 2]);
        more[i / 2] = __fadd_rn(more[i / 2], scores[n][i]);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      more[r] += __shfl_xor_sync(0xffffffffu, more[r], 1);
      more[r] += __shfl_xor_sync(0xffffffffu, more[r], 2);
      mass[r] = fmaf(mass[r], factor[r], more[r]);
    }

    // Weigh the values
#pragma unroll
    for (int s = 0; s < 2; s++) {
      const unsigned a0 = Pair<T>::pack(scores[2 * s][0], scores[2 * s][1]);
      const unsigned a1 = Pair<T>::pack(scores[2 * s][2], scores[2 * s][3]);
      const unsigned a2 = Pair<T>::pack(scores[2 * s + 1][0], scores[2 * s + 1][1]);
      const unsigned a3 = Pair<T>::pack(scores[2 * s + 1][2], scores[2 * s + 1][3]);
#pragma unroll
      for (int half = 0; half < HALVES; half++) {
#pragma unroll
        for (int j = 0; j < 8; j++) {
          unsigned words[4];
#pragma unroll
          for (int i = 0; i < 4; i++) {
            const uint4& all_eight = value[s][i][half];
            words[i] = j < 2 ? all_eight.x : j < 4 ? all_eight.y : j < 6 ? all_eight.z : all_eight.w;
          }
          const unsigned halves = j % 2 ? 0x7632 : 0x5410;
          const unsigned b0 = __byte_perm(words[0], words[1], halves);
          const unsigned b1 = __byte_perm(words[2], words[3], halves);
          Pair<T>::multiply(sums[half][j], a0, a1, a2, a3, b0, b1);
        }
      }
    }
    keys.read(key_rows + (long long)(base + 128) * D, base + 128 < stop && base + 160 <= prefix);
  }
  next.read_keys(keys);

  // Join the warps in order; a lane's sums of a row and half are 16 neighbours
  if (t == 0) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      team.peaks[warp][g + 8 * r] = peak[r];
    }
  }
  meet_team();
  const long long place = ((long long)(path * G + head) * all.chunks + chunk) * rows;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float top = -INFINITY;
#pragma unroll
    for (int w = 0; w < 4; w++) {
      top = fmaxf(top, team.peaks[w][g + 8 * r]);
    }
    const float factor = peak[r] == -INFINITY ? 0.0f : exp2f(peak[r] - top);
    if (t == 0) {
      team.masses[warp][g + 8 * r] = factor * mass[r];
      if (warp == 0 && all.chunks > 1 && queries.nodes[g + 8 * r] >= 0) {
        all.peaks[place + 16 * group + g + 8 * r] = top;
      }
    }
#pragma unroll
    for (int half = 0; half < HALVES; half++) {
#pragma unroll
      for (int q = 0; q < 4; q++) {
        const int column = q / 2, j = 4 * (q % 2);
        float4 four;
        four.x = factor * sums[half][j][2 * r + column];
        four.y = factor * sums[half][j + 1][2 * r + column];
        four.z = factor * sums[half][j + 2][2 * r + column];
        four.w = factor * sums[half][j + 3][2 * r + column];
        *reinterpret_cast<float4*>(&team.piece[warp][g + 8 * r][64 * half + 16 * t + 4 * q]) = four;
      }
    }
  }
  // Behind this meeting the next unit's queries are there, and warps ahead replace this one's.
  constexpr int FOURS = D / 4, TURNS = 16 * FOURS / 128;
  int node[TURNS];
#pragma unroll
  for (int i = 0; i < TURNS; i++) {
    node[i] = queries.nodes[(thread + 128 * i) / FOURS];
  }
  wait_for_copies<0>();
  meet_team();
#pragma unroll
  for (int i = 0; i < TURNS; i++) {
    const int r = (thread + 128 * i) / FOURS, d = 4 * (thread % FOURS), row = 16 * group + r;
    if (node[i] >= 0) {
      float4 sum = {0, 0, 0, 0};
      float weight = 0;
#pragma unroll
      for (int w = 0; w < 4; w++) {
        const float4 four = *reinterpret_cast<const float4*>(&team.piece[w][r][d]);
        sum.x += four.x;
        sum.y += four.y;
        sum.z += four.z;
        sum.w += four.w;
        weight += team.masses[w][r];
      }
      if (all.chunks == 1) {
        uint2 packed;
        packed.x = Pair<T>::pack(sum.x / weight, sum.y / weight);
        packed.y = Pair<T>::pack(sum.z / weight, sum.w / weight);
        T* to = all.y + ((long long)node[i] * G * REPEATS + head * REPEATS + unit.steps.quotient(row)) * D + d;
        *reinterpret_cast<uint2*>(to) = packed;
      } else {
        *reinterpret_cast<float4*>(&all.sums[(place + row) * D + d]) = sum;
        if (d == 0) {
          all.masses[place + row] = weight;
        }
      }
    }
  }
}

// Takes a team's units. `keys`: the first one's, as `read_keys` reads them.
template <typename T, int REPEATS, int G, int D>
__device__ void attend_all(Units<T, REPEATS, G, D>& units, Keys<T, D>& keys, Team* teams) {
  Team& team = teams[threadIdx.x / 128];
  units.copy_queries(team.queries[0]);
  wait_for_copies<0>();
  meet_team();
  for (int turn = 0; units.there(); turn = 1 - turn) {
    const Units<T, REPEATS, G, D> unit = units;
    units.next();
    units.prefetch_cache();
    attend(unit, units, keys, team, turn);
  }
}

// Joins the chunks in ascending order. A warp per path, head, row and 64 dimensions, two to a lane.
template <typename T, int REPEATS, int G, int D>
__device__ void merge(const Attended<T>& all) {
  constexpr int PARTS = D / 64;
  const int rows = REPEATS * all.S, lane = threadIdx.x % 32, items = all.P * G * rows * PARTS;
  for (int item = blockIdx.x + gridDim.x * (threadIdx.x / 32); item < items; item += gridDim.x * WARPS) {
    const int part = item % PARTS, row = item / PARTS % rows;
    const int head = item / PARTS / rows % G, path = item / PARTS / rows / G;
    const int node = all.paths[path * all.S + row % all.S];
    if (node < 0) {
      continue;
    }
    const long long first = (long long)(path * G + head) * all.chunks * rows + row;
    float top = -INFINITY;
    for (int c = lane; c < all.chunks; c += 32) {
      top = fmaxf(top, all.peaks[first + (long long)c * rows]);
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, distance));
    }
    float total[2] = {0, 0}, mass = 0;
    for (int start = 0; start < all.chunks; start += 8) {
      float factor[8], masses[8];
      float2 sums[8];
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const bool there = start + i < all.chunks;
        const long long from = first + (long long)(start + i) * rows;
        factor[i] = there ? all.peaks[from] : -INFINITY;
        masses[i] = there ? all.masses[from] : 0.0f;
        sums[i] = there ? reinterpret_cast<const float2*>(all.sums + from * D + 64 * part)[lane] : float2{0, 0};
      }
#pragma unroll
      for (int i = 0; i < 8; i++) {
        factor[i] = factor[i] == -INFINITY ? 0.0f : exp2f(factor[i] - top);
        mass = fmaf(factor[i], masses[i], mass);
        total[0] = fmaf(factor[i], sums[i].x, total[0]);
        total[1] = fmaf(factor[i], sums[i].y, total[1]);
      }
    }
    T* to = all.y + ((long long)node * G * REPEATS + head * REPEATS + row / all.S) * D + 64 * part;
    reinterpret_cast<unsigned*>(to)[lane] = Pair<T>::pack(total[0] / mass, total[1] / mass);
  }
}
