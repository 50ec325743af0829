// Takes the place of Horovod's cuda_kernels.cu, the only file of Horovod that needs NVIDIA's compiler.
//
// The CUDA runtime's own copies replace the batched copy. distrain never sums with a scale factor, so kernels that
// scale do not exist here: a program that asks for one ends with a message.

#include "cuda_kernels.h"

#include <stdexcept>
#include <string>

namespace horovod {
namespace common {

namespace {

[[noreturn]] void RefuseScale() {
  throw std::logic_error("This build of Horovod has no kernel that scales on a GPU. Sum without prescale_factor and "
                         "postscale_factor, and divide in TensorFlow.");
}

} // namespace

void BatchedD2DMemcpyCudaImpl(BatchedD2DParams& params, int num_copies, cudaStream_t stream) {
  for (int copy = 0; copy < num_copies; ++copy) {
    cudaError_t status = cudaMemcpyAsync(params.out[copy], params.in[copy], params.sizes[copy],
                                         cudaMemcpyDeviceToDevice, stream);
    if (status != cudaSuccess) {
      throw std::runtime_error(std::string("cudaMemcpyAsync failed: ") + cudaGetErrorString(status));
    }
  }
}

void BatchedScaledD2DMemcpyCudaImpl(BatchedD2DParams& params, int num_copies, double scale_factor, DataType,
                                    cudaStream_t stream) {
  if (scale_factor != 1.0) RefuseScale();
  BatchedD2DMemcpyCudaImpl(params, num_copies, stream);
}

void ScaleBufferCudaImpl(const void*, void*, const int64_t, double, DataType, cudaStream_t) { RefuseScale(); }

} // namespace common
} // namespace horovod
