  // Dense weights: w [N, K], x [M, K], both of type T.
  const int M = x_shape[0];
  const int K = x_shape[1];
  const int N = w_shape[0];
  typedef DenseWeights<T, ALIGNED> Weights;
  const Weights weights = {w, K};
