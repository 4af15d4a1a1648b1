"""What scripts share. They import this package before all others, since the first two settings count only until
then."""

import logging
import os
import warnings

# OpenMP threads that spin as they wait: on two cores, one busy process slowed a step by 3.0, without spinning by 1.8
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# bitsandbytes advises a package with a faster kernel for 4 bits on a CPU, which has no gradient
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
# transformers reads its own old names
warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing` is deprecated")
