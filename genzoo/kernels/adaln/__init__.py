"""The adaptive layer norm of a residual block with the gate before it, fused for GPUs.

    x1  = x + gate branch                          the end of the branch before; absent at a block's start
    h   = (x1 - mean x1) r,   r = (mean (x1 - mean x1)^2 + eps)^(-1/2)
    out = h (1 + scale) + shift                    cast to what the next linear layer reads

With G the gradient of x1 from elsewhere and g that of out:

    dn = g (1 + scale),   dx1 = r (dn - mean dn - h mean (dn h)) + G,   dx = dx1,   dbranch = gate dx1
    dshift = sum g,   dscale = sum g h,   dgate = sum dx1 branch          over the rows that share a condition

`genzoo.nn.modulation` is the form in plain torch and decides which one runs.
"""
