  // mxfp4 (GROUP 32) or nvfp4 (GROUP 16) weights: w [N, K / 8], scales [N, K / GROUP] of uint8, x [M, K] of type T.
  constexpr bool ALIGNED = true;
  const int M = x_shape[0];
  const int K = x_shape[1];
  const int N = w_shape[0];
  typedef Fp4Weights<GROUP> Weights;
  const Weights weights = {w, scales, K};
