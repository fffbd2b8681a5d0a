"""Tables from elsewhere as presets: published ones by name (`make`), downloaded files (`read`). Executes nothing."""

from .published import make, published
from .read import KINDS, merged, read
from .restricted import UnreadableFile
