"""Image files to arrays: classes in folders, attributes, views of objects."""

from metaprior.images.attributes import Attributes, read_attributes
from metaprior.images.classes import Images, read_classes
from metaprior.images.views import Views, read_views

__all__ = ["Attributes", "Images", "Views", "read_attributes", "read_classes", "read_views"]
