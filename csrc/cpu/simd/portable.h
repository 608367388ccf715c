// For one wheel that older systems can load: what gcc and glibc would take from newer ones than
// PyTorch's own wheels ask for (manylinux_2_28).
#pragma once

#include <new>

#if defined(__x86_64__) && defined(__GLIBC__)
// The same functions under their first names, before errno was left out of them.
__asm__(".symver exp, exp@GLIBC_2.2.5");
__asm__(".symver log, log@GLIBC_2.2.5");
#endif

#if defined(__GLIBCXX__) && _GLIBCXX_RELEASE >= 11
namespace std {
// gcc 11 moved it into its run-time library.
[[noreturn]] __attribute__((weak)) void __throw_bad_array_new_length() {
  throw bad_alloc();
}
}  // namespace std
#endif
