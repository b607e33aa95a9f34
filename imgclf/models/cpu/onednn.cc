// A convolution and its two gradients by oneDNN, as one function that XLA calls; onednn.py compiles and registers it.
//
// Maps are [B,H,W,C], kernels [kh,kw,C,K], as everywhere in imgclf. oneDNN works on one thread at a time here: a batch is cut into as many
// parts as XLA's own pool has threads, which compute them, so that no second pool of threads contends for the cores. Kernels are put into
// oneDNN's own order at each call, which takes some hundredth of the convolution; maps keep theirs.

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include <omp.h>

#include "oneapi/dnnl/dnnl.hpp"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using dnnl::memory;
using Type = memory::data_type;
using Dims = memory::dims;

namespace {

enum Kind : int64_t { kForward = 0, kInputGradient = 1, kKernelGradient = 2 };

dnnl::engine& Engine() {
  static auto* engine = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *engine;
}

// Memory that a thread keeps from call to call, as the system would zero new pages each time.
char* Kept(int place, size_t bytes) {
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  struct Block {
    std::unique_ptr<char, Free> memory;
    size_t bytes = 0;
  };
  thread_local std::array<Block, 3> blocks;
  Block& block = blocks[place];
  if (block.bytes < bytes) {
    block.bytes = (bytes + 4095) / 4096 * 4096;
    block.memory.reset(static_cast<char*>(std::aligned_alloc(4096, block.bytes)));
  }
  return block.memory.get();
}

// The convolution of some images, or a gradient of it, as oneDNN has compiled it.
struct Program {
  dnnl::primitive compute;
  memory::desc maps, kernel, outputs, scratch;
  memory::desc kernel_here;  // in XLA's order
  dnnl::reorder reorder;
  bool reorders = false;
};

struct Shape {
  Kind kind;
  Dims maps, kernel, outputs;
  Dims strides, before, behind;
  Type operands, kernel_type, result;
  auto key() const { return std::tie(kind, maps, kernel, outputs, strides, before, behind, operands, kernel_type, result); }
  bool operator<(const Shape& other) const { return key() < other.key(); }
};

std::unique_ptr<Program> Compiled(const Shape& shape) {
  using Tag = memory::format_tag;
  const auto direct = dnnl::algorithm::convolution_direct;
  auto desc = [](const Dims& dims, Type type, Tag tag) { return memory::desc(dims, type, tag); };
  auto type_if = [&](bool result) { return result ? shape.result : shape.operands; };
  const auto maps = desc(shape.maps, type_if(shape.kind == kInputGradient), Tag::nhwc);
  const auto outputs = desc(shape.outputs, type_if(shape.kind == kForward), Tag::nhwc);
  const auto kernel = desc(shape.kernel, type_if(shape.kind == kKernelGradient), Tag::any);
  dnnl::primitive_attr options;
  options.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  // oneDNN asks for the forward convolution of a gradient, as a hint
  auto uniform = [&](const Dims& dims, Tag tag) { return desc(dims, shape.operands, tag); };
  const dnnl::convolution_forward::primitive_desc forward(
      Engine(), dnnl::prop_kind::forward_training, direct, uniform(shape.maps, Tag::nhwc), uniform(shape.kernel, Tag::any),
      shape.kind == kForward ? outputs : uniform(shape.outputs, Tag::nhwc), shape.strides, shape.before, shape.behind, options);
  auto program = std::make_unique<Program>();
  if (shape.kind == kForward) {
    program->compute = dnnl::convolution_forward(forward);
    program->maps = forward.src_desc(), program->kernel = forward.weights_desc(), program->outputs = forward.dst_desc();
    program->scratch = forward.scratchpad_desc();
  } else if (shape.kind == kInputGradient) {
    const dnnl::convolution_backward_data::primitive_desc found(Engine(), direct, maps, kernel, outputs, shape.strides, shape.before,
                                                                shape.behind, forward, options);
    program->compute = dnnl::convolution_backward_data(found);
    program->maps = found.diff_src_desc(), program->kernel = found.weights_desc(), program->outputs = found.diff_dst_desc();
    program->scratch = found.scratchpad_desc();
  } else {
    const dnnl::convolution_backward_weights::primitive_desc found(Engine(), direct, maps, kernel, outputs, shape.strides, shape.before,
                                                                   shape.behind, forward, options);
    program->compute = dnnl::convolution_backward_weights(found);
    program->maps = found.src_desc(), program->kernel = found.diff_weights_desc(), program->outputs = found.diff_dst_desc();
    program->scratch = found.scratchpad_desc();
  }
  program->kernel_here = desc(shape.kernel, shape.kernel_type, Tag::hwio);
  program->reorders = program->kernel != program->kernel_here;
  if (program->reorders) {
    const auto& from = shape.kind == kKernelGradient ? program->kernel : program->kernel_here;
    const auto& to = shape.kind == kKernelGradient ? program->kernel_here : program->kernel;
    program->reorder = dnnl::reorder(dnnl::reorder::primitive_desc(Engine(), from, Engine(), to));
  }
  return program;
}

Program* ProgramFor(const Shape& shape) {
  static auto* lock = new std::mutex;
  static auto* programs = new std::map<Shape, std::unique_ptr<Program>>;
  std::lock_guard<std::mutex> held(*lock);
  auto& program = (*programs)[shape];
  if (!program) program = Compiled(shape);
  return program.get();
}

// Calls work(0) … work(parts - 1) on the pool's threads and this one. This thread takes every part that nobody has begun, so that it never
// waits for a pool whose threads all wait, too.
void InParts(ffi::ThreadPool& pool, int64_t parts, const std::function<void(int64_t)>& work) {
  struct Shared {
    std::function<void(int64_t)> work;
    std::atomic<int64_t> next{0};
    int64_t parts, done = 0;
    std::mutex lock;
    std::condition_variable all_done;
    void Run() {
      for (int64_t part; (part = next.fetch_add(1)) < parts;) {
        work(part);
        std::lock_guard<std::mutex> held(lock);
        if (++done == parts) all_done.notify_all();
      }
    }
  };
  auto shared = std::make_shared<Shared>();
  shared->work = work, shared->parts = parts;
  for (int64_t helper = 1; helper < parts; ++helper) pool.Schedule([shared] { shared->Run(); });
  shared->Run();
  std::unique_lock<std::mutex> held(shared->lock);
  shared->all_done.wait(held, [&] { return shared->done == parts; });
}

Dims Maps(const ffi::AnyBuffer& buffer) {
  const auto size = buffer.dimensions();
  return {size[0], size[3], size[1], size[2]};
}

Dims Kernel(const ffi::AnyBuffer& buffer) {
  const auto size = buffer.dimensions();
  return {size[3], size[2], size[0], size[1]};
}

Type TypeOf(const ffi::AnyBuffer& buffer) { return buffer.element_type() == ffi::DataType::BF16 ? Type::bf16 : Type::f32; }

int64_t Bytes(Type type) { return type == Type::bf16 ? 2 : 4; }

int64_t Size(const Dims& dims) {
  int64_t size = 1;
  for (int64_t side : dims) size *= side;
  return size;
}

ffi::Error Convolution(ffi::ThreadPool pool, ffi::AnyBuffer first, ffi::AnyBuffer second, ffi::Result<ffi::AnyBuffer> result, int64_t kind,
                       int64_t stride, ffi::Span<const int64_t> padding) try {
  Shape shape{static_cast<Kind>(kind)};
  const ffi::AnyBuffer& maps = kind == kInputGradient ? *result : first;
  const ffi::AnyBuffer& outputs = kind == kForward ? *result : kind == kInputGradient ? first : second;
  const ffi::AnyBuffer& kernel = kind == kKernelGradient ? *result : second;
  shape.maps = Maps(maps), shape.outputs = Maps(outputs), shape.kernel = Kernel(kernel);
  shape.strides = {stride, stride}, shape.before = {padding[0], padding[2]}, shape.behind = {padding[1], padding[3]};
  shape.operands = TypeOf(first), shape.result = TypeOf(*result), shape.kernel_type = TypeOf(kernel);

  const int64_t batch = shape.maps[0], parts = std::max<int64_t>(1, std::min<int64_t>(batch, pool.num_threads()));
  std::vector<Program*> programs;
  std::vector<int64_t> starts;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t start = batch * part / parts, stop = batch * (part + 1) / parts;
    Shape cut = shape;
    cut.maps[0] = cut.outputs[0] = stop - start;
    starts.push_back(start), programs.push_back(ProgramFor(cut));
  }
  // The parts' kernels may differ in order: each has one of its own, unless all parts are of the same program.
  const bool gradient = kind == kKernelGradient, same = std::all_of(programs.begin(), programs.end(), [&](Program* p) { return p->kernel == programs[0]->kernel; });
  if (!same) return ffi::Error::Internal("oneDNN wants kernels of several orders for the parts of one batch");
  const size_t kernel_bytes = (programs[0]->kernel.get_size() + 63) / 64 * 64;
  char* kernels = Kept(0, kernel_bytes * (gradient ? parts : 1));
  static thread_local dnnl::stream here(Engine());
  memory kernel_here(programs[0]->kernel_here, Engine(), kernel.untyped_data());
  omp_set_num_threads(1);  // of this thread alone
  memory ordered(programs[0]->kernel, Engine(), !programs[0]->reorders && !gradient ? kernel.untyped_data() : kernels);
  if (!gradient && programs[0]->reorders) programs[0]->reorder.execute(here, kernel_here, ordered), here.wait();

  const Type maps_type = TypeOf(maps), outputs_type = TypeOf(outputs);
  const int64_t maps_bytes = Size(shape.maps) / batch * Bytes(maps_type), outputs_bytes = Size(shape.outputs) / batch * Bytes(outputs_type);
  InParts(pool, parts, [&](int64_t part) {
    omp_set_num_threads(1);
    static thread_local dnnl::stream stream(Engine());
    Program& program = *programs[part];
    memory part_maps(program.maps, Engine(), static_cast<char*>(maps.untyped_data()) + starts[part] * maps_bytes);
    memory part_outputs(program.outputs, Engine(), static_cast<char*>(outputs.untyped_data()) + starts[part] * outputs_bytes);
    memory part_kernel = gradient ? memory(program.kernel, Engine(), kernels + part * kernel_bytes) : ordered;
    memory scratch(program.scratch, Engine(), Kept(1, std::max<size_t>(64, program.scratch.get_size())));
    const bool forward = kind == kForward, input = kind == kInputGradient;
    program.compute.execute(stream, {{input ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, part_maps},
                                     {gradient ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, part_kernel},
                                     {forward ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, part_outputs},
                                     {DNNL_ARG_SCRATCHPAD, scratch}});
    stream.wait();
  });
  if (gradient) {
    // always in the same order, so that the sum has the same bits each time
    float* total = reinterpret_cast<float*>(kernels);
    const size_t size = kernel_bytes / sizeof(float);
    for (int64_t part = 1; part < parts; ++part) {
      const float* share = reinterpret_cast<const float*>(kernels + part * kernel_bytes);
      for (size_t i = 0; i < size; ++i) total[i] += share[i];
    }
    if (programs[0]->reorders) {
      programs[0]->reorder.execute(here, ordered, kernel_here), here.wait();
    } else {
      std::copy(kernels, kernels + programs[0]->kernel.get_size(), static_cast<char*>(kernel.untyped_data()));
    }
  }
  return ffi::Error::Success();
} catch (const dnnl::error& error) {
  return ffi::Error::Internal(error.what());
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(ImgclfConvolution, Convolution,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<int64_t>("kind")
                                  .Attr<int64_t>("stride")
                                  .Attr<ffi::Span<const int64_t>>("padding"));
