// The smallest test harness that says what failed and where.
#pragma once

#include <cstdio>
#include <cstdlib>

inline int failures = 0;

#define CHECK(condition)                                                              \
  do {                                                                                \
    if (!(condition)) {                                                               \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);            \
      if (++failures > 20) std::exit(1);                                              \
    }                                                                                 \
  } while (0)

#define CHECK_THROWS(type, expression)                                                \
  do {                                                                                \
    bool thrown = false;                                                              \
    try {                                                                             \
      (void)(expression);                                                             \
    } catch (const type&) {                                                           \
      thrown = true;                                                                  \
    }                                                                                 \
    if (!thrown) {                                                                    \
      std::fprintf(stderr, "%s:%d: no " #type " from " #expression "\n", __FILE__, __LINE__); \
      if (++failures > 20) std::exit(1);                                              \
    }                                                                                 \
  } while (0)

inline int report() {
  if (failures == 0) std::puts("ok");
  return failures == 0 ? 0 : 1;
}
