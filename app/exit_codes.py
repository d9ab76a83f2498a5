"""How the commands end, beside 0 and 128 + n for signal n."""

SOME_FAILED = 1
BAD_SETTINGS = 2
START_FAILED = 3
ENGINE_LOST = 70  # EX_SOFTWARE of sysexits.h; whoever supervises the process starts it anew
