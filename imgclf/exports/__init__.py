"""A trained classifier in forms that run without imgclf: ONNX, StableHLO, timm's and Keras's files."""
