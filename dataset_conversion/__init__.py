"""Sources of scribbles and dense labels, written as nnU-Net raw datasets.

Here are the names that commands take as options: the command line knows them without importing what they are of.
"""

from typing import Literal

#: Of `meanings.PRESETS`.
CodingName = Literal["acdc", "chaos", "prostatex"]
#: Of `splits.acdc_folds`.
AcdcSplit = Literal["nnunet", "contiguous", "maag"]
#: Of `chaos.convert_chaos`.
ChaosSequence = Literal["t1-in", "t1-out", "t1", "t1-both", "t2"]
ChaosSplit = Literal["nnunet", "pacingpseudo", "attenscribble"]
#: Of `scribbles.ScribbleRules`.
Style = Literal["interior", "interior+border", "skeleton", "points"]
#: Of `next_drawings.TOOLS`.
Tool = Literal["slicer", "itk-snap", "napari"]
