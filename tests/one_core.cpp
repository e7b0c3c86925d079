// Preloaded into the processes that run tests side by side, each on a core of its own (tests/conftest.py).
#include <ctime>
#include <functional>

// MindSpore's threads wait for work by calling this in a loop, for ever; on a shared core that takes the time of the thread that has work.
extern "C" int sched_yield() noexcept {
  const timespec pause{0, 1000000};
  nanosleep(&pause, nullptr);
  return 0;
}

// MindSpore cuts an operator into pieces for its threads and waits for them; on one core the caller is done sooner than they wake up.
namespace mindspore {

using Piece = std::function<int(void *, int, float, float)>;

struct ThreadPool {
  int ParallelLaunch(const Piece &piece, void *content, int pieces);
};

int ThreadPool::ParallelLaunch(const Piece &piece, void *content, int pieces) {
  for (int i = 0; i < pieces; ++i) {
    if (int error = piece(content, i, float(i) / pieces, float(i + 1) / pieces)) return error;
  }
  return 0;
}

}  // namespace mindspore
