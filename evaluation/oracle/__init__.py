"""Reads a video and tells whether it does what a caption claims, from pixels alone; it knows the world's words, never its renderer.

The rules, all of them strict; a verdict's `lenient` differs in the shape rule alone.
- Background: medians of the border ring, frame by frame. A plain colour must be the named one in every frame and must not wander;
  gradients and textures are told by a plane through the ring, by grey levels and by the directions of edges.
- Objects: connected pixels that differ from the background, parted by colour where objects touch. One object must be the only one in
  85 % of the frames and found in 90 %; several objects, or a post, may hide some for a while (60 %).
- Shape: of the ideal shapes of equal area at the same centroid the named one overlaps best (by 0.02; 0.01 if tiny), with a soft IoU of
  at least 0.75, and the rim is at most 1.9 px + 0.12 radii wide. Upright, unless the claimed motion is a rotation. Lenient: angular
  moments. A soft rim is sharpened at the half-way contour first, as codecs halve the resolution of colour.
- "Most frames" means 80 % of them, and 70 % of each half of the clip. Frames in which something hides a part of the object may speak
  for its shape (by its visible part), never against it; a shape must be told in 30 % of the frames, and somewhere in each half.
  What a post hardly ever shows whole has the one size at which it fits best, unless its height says that it grows.
- Colour: the nearest named colour, clearly nearer than the second, in most frames.
- Motion: robust slopes of place and log radius, in the world (the camera's own motion, read from the background's texture, is taken
  off). It must cover a least distance, advance in each third of the clip, without a jump, while what should stay constant does.
- Light: under which light more pixels have an object's colour. Camera: pan and zoom of the texture; over plain ground it is static.
- Framing, which no caption claims: an object is cut off in a frame where it fills two pixels or more along the picture's edge.
- Two objects or more: the best one-to-one assignment of objects to claims; `binding` says that it holds as a whole.
"""

from evaluation.oracle.framing import in_view
from evaluation.oracle.reading import State, Track, read
from evaluation.oracle.verdict import Verdict, chance, judge

__all__ = ["State", "Track", "Verdict", "chance", "in_view", "judge", "read"]
