"""Whether this machine can compile and run the kernels."""

import shutil

import pytest

from resnet_cifar100.kernels import build

CAN_BUILD = shutil.which("g++") and "avx2" in build._processor_flags().split()
needs_kernel = pytest.mark.skipif(not CAN_BUILD, reason="g++ and a processor with AVX2 are needed")
