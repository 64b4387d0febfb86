// y [M, N] = x W^T (`product.cuh`), in units of 32 rows of W.

Workspace& workspace = *static_cast<Workspace*>(launch_memory());
const int M = x_shape[0], K = x_shape[1], N = w_shape[0];
const Matrix<T> matrix{w, reinterpret_cast<const T*>(scales), reinterpret_cast<const T*>(biases)};
product<T, 2, BITS, GROUP, false>(
    matrix, K, N / 32, 32, 16, M, static_cast<const T*>(nullptr), nullptr, workspace, [&] { return x; },
    [&](int unit, int n, int m, const float (&totals)[2]) {
      if (m < M) {
        y[(long long)m * N + 32 * unit + n] = static_cast<T>(totals[0]);
        y[(long long)m * N + 32 * unit + 16 + n] = static_cast<T>(totals[1]);
      }
    });
