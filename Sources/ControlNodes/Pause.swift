#if canImport(Glibc)
  import Glibc
#else
  import Musl
#endif

/// Sleeps a little; for loops that look at a shutdown flag in between.
func pause(milliseconds: UInt32) { usleep(milliseconds * 1_000) }
