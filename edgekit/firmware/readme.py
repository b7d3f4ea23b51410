"""The bundle's README: five lines that build a program around the model, as they stand."""

from __future__ import annotations

from edgekit.artifacts import MemoryUse
from edgekit.firmware.python_module import module_name
from edgekit.firmware.tool import Toolchain
from edgekit.target import Target

__all__ = ["bundle_readme"]

_PYTHON = """
From Python on the board: copy `python/` there, and with numpy installed

```python
from {module} import Model
outputs = Model()(x)    # reals in, reals out; Model(threads=4) splits large operators
```
"""


def bundle_readme(target: Target, toolchain: Toolchain, library: str, image: str, memory: MemoryUse) -> str:
    """Text for an application developer. All names in it are edgekit's own; none comes from the model."""
    bare_metal = target.platform != "linux"
    python = "" if bare_metal else _PYTHON.format(library=library, module=module_name(library))
    # nosys: an application brings its own start-up and system calls; newlib's empty ones make it link here.
    # noexecstack: newlib's own assembler code does not say that it needs no executable stack, and ld warns.
    specs = ["--specs=nano.specs", "--specs=nosys.specs", "-Wl,-z,noexecstack"] if bare_metal else []
    compiler = " ".join([toolchain.gcc.name, *toolchain.flags, "-O2", *specs])
    return f"""# {library} for {target.name}

`lib{library}.a` is the model: call `edgekit_model_run()` of `edgekit_model.h` in your own program. These five
lines, typed in this folder, build one:

```sh
cat > main.c <<'END'
#include "edgekit_model.h"
int main(void) {{ *(char *)edgekit_model_input(0) = 1; return edgekit_model_run(); }}
END
{compiler} -I. main.c -L. -l{library} -lm -o app
```
{python}
The model takes {memory.weights_bytes} bytes of constants and {memory.arena_bytes} bytes of memory.
`{image}` is the model together with edgekit's agent, for `edgekit flash`, `run` and `profile`;
`manifest.json` has the hash of every file and the versions of all that made them.
"""
