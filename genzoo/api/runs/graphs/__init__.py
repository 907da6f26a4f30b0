"""Networks as graphs that run without genzoo's code: ONNX, torch.export, TorchScript."""
