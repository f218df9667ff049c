"""Videos and strips of frames. Called, it draws a policy file or a row: `epvf_data.render("ant.zarr", row="worst")`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Render(ModuleType):
    def __call__(self, *args: Any, **settings: Any) -> Any:
        from epvf_data.render.either import render

        return render(*args, **settings)


sys.modules[__name__].__class__ = _Render
