  // Affine-quantised weights: w [N, K * BITS / 32], scales and biases [N, K / GROUP] of type S, x [M, K] of type T.
  constexpr bool ALIGNED = true;
  const int M = x_shape[0];
  const int K = x_shape[1];
  const int N = w_shape[0];
  typedef AffineWeights<S, BITS, GROUP> Weights;
  const Weights weights = {w, scales, biases, K};
