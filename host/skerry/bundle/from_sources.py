"""What a host does with sources instead of a bundle: it makes the image itself, from the script they carry.

The script, the clock and the seed are the sender's; the engine and the prelude are this host's, and the manifest of the
bundle that comes out names them. What the sender says of functions and schema stays as it is: activation compares it
with what the image describes, as for any bundle. The image is what `bundle.build` makes of the same inputs, so a bundle
built by another host with the same engine has the same digest.

Deliberately absent: bundling TypeScript. The script is bundled where the app's packages are, not on the host.
"""

import hashlib
from dataclasses import replace

from skerry.bundle.build import default_parts, image_of
from skerry.bundle.bundle_file import IMAGE, MANIFEST, Bundle, make_bundle
from skerry.bundle.image import ImageBuilder


def with_image(sources: Bundle, image_builder: ImageBuilder) -> Bundle:
    """The whole bundle of these sources. Blocks for as long as the app's modules take to load.

    Raises: ClientError `ModuleLoadFailed`, `GuestModuleInvalid`, `BundleTooLarge`; SystemFault where the engine or the
    prelude cannot be made.
    """
    parts = default_parts(lambda _: None)
    image = image_of(sources, image_builder=image_builder, parts=parts)
    manifest = replace(
        sources.manifest,
        engine_digest=hashlib.sha256(parts.engine).hexdigest(),
        prelude_digest=hashlib.sha256(parts.prelude).hexdigest(),
    )
    return make_bundle({**sources.entries, IMAGE: image, MANIFEST: manifest.to_json()})
