"""The work on networks: data, models, training, pruning, export, quantization. The only room that may import torch."""

import os

# Torch's threads spin while they wait for each other. With other work on the machine that is ruinous: a ResNet-20 at
# 32 x 32 trained at 29 images/s on two busy cores, 227 when its threads sleep instead, 290 on one thread; on two idle
# cores 503, 362 and 290. It must be said before torch is imported; whoever set it otherwise is obeyed.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
