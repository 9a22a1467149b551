"""A cardiac-like phantom with scribbles: a task for those who have no data at hand yet.

Short-axis stacks of a schematic chest. What makes the task worth solving is kept from the real one: the blood of the
ventricles is as bright as vessels, bowel and fat, the myocardium as grey as liver and muscle, papillary muscles belong
to the left ventricle, slices are thick, coil shading and noise lie over everything, and the image shows the whole
chest, most of which no stroke comes near. Pixels are coarse, and borders stand out from the noise, so that trainings
learn dense labels within the minutes of a demo.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import distance_transform_edt, gaussian_filter, zoom

from nnunet_attenscribble.dataset_conversion.cases import Case
from nnunet_attenscribble.dataset_conversion.raw_dataset import RawDataset, Writing, WrittenDatasets, write_raw_datasets
from nnunet_attenscribble.dataset_conversion.strokes import draw_line, level_line, part_of_line, zigzag

LABELS = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
UNLABELLED = 4

# Mean signal of tissues, after cine scans (balanced SSFP), where blood and fat are bright.
_AIR, _LUNG, _MUSCLE, _MYOCARDIUM, _LIVER, _SPLEEN, _BLOOD, _FAT = 12.0, 27.0, 50.0, 62.0, 66.0, 80.0, 116.0, 132.0

# Share of a class's pixels under its stroke, after the expert scribbles of ACDC (mean of 100 frames: 0.11, 0.16, 0.12).
_COVERAGE = {1: 0.115, 2: 0.165, 3: 0.12}

_RV_WALL = 7.0  # mm: not thinner than pixels can show, for nothing else parts the ventricle from the fat around it
_SUBPIXELS = 3  # along each axis: they give borders their partial volume
_SMALLEST_SECTION = 10  # pixels; experts do not outline a ventricle in a slice that shows less of it


@dataclass(frozen=True, eq=False)
class Phantom:
    """One stack.

    Attributes:
        image: (Z, Y, X) float32, arbitrary units, base to apex.
        labels: (Z, Y, X) uint8, coded as `LABELS`.
        scribble: (Z, Y, X) uint8, coded as `LABELS`, and `UNLABELLED` elsewhere.
        spacing: mm along x, y, z: the order of SimpleITK, reversed to that of the arrays.
    """

    image: np.ndarray
    labels: np.ndarray
    scribble: np.ndarray
    spacing: tuple[float, float, float]


def make_phantom(index: int, *, seed: int = 0) -> Phantom:
    """Phantom number `index` of the series `seed`; the same arguments give the same voxels."""
    rng = np.random.default_rng([seed, index])
    in_plane = float(rng.uniform(4.3, 4.7))
    spacing = (in_plane, in_plane, float(rng.choice([8.0, 10.0])))
    rows, columns = (int(n) for n in rng.choice([56, 60], size=2))
    above, heart, below = int(rng.integers(0, 2)), int(rng.integers(5, 7)), 1
    # 0 at the basal and 1 at the apical slice of the ventricles; slices beyond show neither.
    levels = (np.arange(above + heart + below) - above) / (heart - 1)

    x, y = _warped_grid(rng, rows, columns, in_plane)
    x = x - 16  # the field of view is centred on both ventricles
    anatomy = _Anatomy(rng)
    signal, sections = [], []
    for level in levels:
        breath = rng.normal(0, 0.8, size=2)  # every slice is its own breath-hold
        section, section_labels = anatomy.section(x + breath[0], y + breath[1], float(level))
        signal.append(section)
        sections.append(_label_pixels(section_labels))
    labels = np.stack(sections)
    image = _acquire(rng, np.stack(signal), in_plane)
    return Phantom(image, labels, _scribble(rng, labels), spacing)


def write_phantoms(
    *,
    raw_folder: Path,
    dataset_id: int,
    dense_id: int,
    name: str = "Phantom",
    training: int = 40,
    validation: int = 2,
    test: int = 6,
    seed: int = 0,
) -> WrittenDatasets:
    """Write phantoms as a scribble dataset and its dense twin, with one fold.

    Args:
        raw_folder: nnUNet_raw.
        dataset_id: of the scribble dataset.
        dense_id: of the twin.
        name: of the dataset.
        training: phantoms in `train` of the fold.
        validation: in its `val`.
        test: in imagesTs, with dense labels in labelsTs.
        seed: of the series; phantoms are numbered through, those of training first.

    Raises:
        AttenScribbleError: what keeps the datasets from being written.
    """
    names = [f"phantom_{index:03d}" for index in range(training + validation + test)]
    fold = {"train": names[:training], "val": names[training : training + validation]}
    return write_raw_datasets(
        [_make_case(case, seed, test=index >= training + validation) for index, case in enumerate(names)],
        RawDataset(
            dataset_id=dataset_id,
            dense_id=dense_id,
            name=name,
            channel_names={0: "cineMRI"},
            labels=LABELS,
            provenance={
                "source": "a phantom made by nnunet-attenscribble",
                "license": "CC0",
                "options": {"seed": seed},
            },
            splits=[fold],
        ),
        Writing(raw_folder, workers=1),  # it is quicker than starting others
    )


def phantom_index(identifier: str) -> int:
    """The number that `make_phantom` makes the case of a dataset from."""
    return int(identifier.rpartition("_")[2])


def _make_case(identifier: str, seed: int, *, test: bool) -> Case:
    phantom = make_phantom(phantom_index(identifier), seed=seed)

    def to_image(voxels: np.ndarray) -> sitk.Image:
        image = sitk.GetImageFromArray(voxels)
        image.SetSpacing(phantom.spacing)
        return image

    scribble = None if test else to_image(phantom.scribble)
    return Case(identifier, (to_image(phantom.image),), scribble, to_image(phantom.labels), test)


# --- anatomy ----------------------------------------------------------------------------------------------------------


class _Anatomy:
    """The organs of one case: ellipses whose places and radii (mm) are drawn once and vary smoothly along the stack."""

    def __init__(self, rng: np.random.Generator):
        def about(*mean: float, spread: float) -> np.ndarray:
            return np.array(mean) + rng.uniform(-spread, spread, size=len(mean))

        self.heart = about(-8, -2, spread=13)
        self.drift = about(9, 7, spread=5)  # of the heart's axis, from base to apex
        self.septum = np.deg2rad(180 + rng.uniform(-10, 45))  # the side of the right ventricle
        self.lv_radius, self.wall = rng.uniform(17, 27), rng.uniform(8, 13)
        self.elongation, self.tilt = rng.uniform(0.88, 1.12), rng.uniform(0, np.pi)
        self.rv_width, self.rv_height = rng.uniform(20, 38), rng.uniform(1.0, 1.25)
        self.papillary = np.deg2rad(about(60, -70, spread=25)) + self.septum
        self.body = about(30, 26, spread=9), about(142, 126, spread=9), rng.uniform(-0.6, 0.4)
        self.fat_layer = rng.uniform(7, 16)
        self.cavity = self.body[1] - (self.fat_layer + 9)  # radii of what ribs and muscle leave
        self._move_off_the_chest_wall()
        self.mediastinum = (
            (self.heart + about(-14, -14, spread=8), about(46, 74, spread=10), rng.uniform(-0.9, -0.1)),
            (self.heart + about(-42, -22, spread=9), about(16, 32, spread=6), rng.uniform(-0.9, -0.1)),
        )
        self.epicardial_fat = about(-5, -3, spread=4)
        self.diaphragm, self.slope = rng.uniform(30, 50), rng.uniform(-0.3, 0.1)
        self.stomach = about(62, 66, spread=9), about(32, 24, spread=6), rng.uniform(-0.5, 0.5)
        self.aorta, self.aorta_radius = about(58, 30, spread=6), rng.uniform(9, 13)
        self.vena_cava, self.vena_cava_radius = about(-32, 64, spread=8), rng.uniform(8, 12)
        self.vertebra = about(88, 48, spread=6), about(19, 16, spread=2), 0.4
        self.atria = about(-24, -4, 14, 6, spread=5)
        self.bowel = rng.uniform((-80, 45), (110, 115), size=(7, 2)), rng.uniform(7, 19, size=7)
        self.vessels = rng.uniform((-110, 50), (40, 120), size=(14, 2)), rng.uniform(1.5, 4.0, size=14)
        self.bronchi = rng.uniform((-60, -100), (110, 40), size=(26, 2)), rng.uniform(1.0, 2.6, size=26)

    def _move_off_the_chest_wall(self) -> None:
        """Towards the middle of the chest, until the right ventricle's wall and what lies on it have room."""
        chest, _, angle = self.body
        centre, radii, _ = self._right_ventricle(0.0, self.lv_radius + self.wall)
        x, y = _outline(centre, radii + _RV_WALL + 6, self.septum)
        while not _ellipse(x + self.heart[0], y + self.heart[1], chest, self.cavity, angle).all():
            self.heart += 0.05 * (chest - self.heart)

    def _right_ventricle(self, level: float, reach: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Centre from the heart's axis, radii, width; `reach` is the outer radius of the left ventricle there."""
        taper = _taper(level)
        toward = np.array((np.cos(self.septum), np.sin(self.septum)))
        width = self.rv_width * np.sqrt(max(0.0, 1 - (level / 0.93) ** 1.6))
        # From just behind the heart's axis to `width` in front of the septum: longer, it would show behind the heart.
        radii = np.array((0.55 * reach + width / 2, self.rv_height * reach * (0.75 + 0.25 * taper)))
        return toward * (0.45 * reach + width / 2), radii, width

    def section(self, x: np.ndarray, y: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Signal without noise, and labels, at the positions (x, y) of the slice at `level`."""
        signal = self._chest(x, y, level)
        labels = np.zeros(x.shape, np.uint8)
        cx, cy = self.heart + self.drift * np.clip(level, -0.3, 1.3)
        if level < -0.01:
            self._draw_atria(signal, x - cx, y - cy)
        elif level > 1.01:
            signal[_ellipse(x, y, (cx, cy), (16, 13))] = _FAT  # the fat pad below the apex
        else:
            self._draw_ventricles(signal, labels, x - cx, y - cy, level)
        return signal, labels

    def _chest(self, x: np.ndarray, y: np.ndarray, level: float) -> np.ndarray:
        signal = np.full(x.shape, _AIR)
        centre, radii, angle = self.body
        for layer, tissue in ((radii, _FAT), (radii - self.fat_layer, _MUSCLE), (self.cavity, _LUNG)):
            signal[_ellipse(x, y, centre, layer, angle)] = tissue
        inside = signal == _LUNG
        for vessel, radius in zip(*self.bronchi, strict=True):
            signal[_ellipse(x, y, vessel + 6 * level, (radius, radius)) & inside] = 0.7 * _BLOOD
        # The mediastinum: fat, thymus, vessels between the heart and the chest wall.
        for (place, place_radii, place_angle), tissue in zip(self.mediastinum, (0.55 * _FAT, 0.75 * _FAT), strict=True):
            signal[_ellipse(x, y, place + 4 * level, place_radii, place_angle) & inside] = tissue
        # The diaphragm's dome: going down the stack it rises into view.
        dome = self.diaphragm - 9 * level + self.slope * x + 0.0014 * (x + 10) ** 2
        below = (y > dome) & inside
        signal[below] = _LIVER
        for vessel, radius in zip(*self.vessels, strict=True):
            signal[_ellipse(x, y, vessel + 4 * level, (radius, 1.6 * radius), vessel[0]) & below] = 0.9 * _BLOOD
        # Bowel: blood's signal in walls of muscle, left ventricles to whoever sees no farther.
        for loop, radius in zip(*self.bowel, strict=True):
            place = loop + 6 * level
            signal[_ellipse(x, y, place, (radius + 6, 0.8 * radius + 6), loop[0]) & below] = _MYOCARDIUM
            signal[_ellipse(x, y, place, (radius, 0.8 * radius), loop[0]) & below] = _BLOOD
        stomach, stomach_radii, stomach_angle = self.stomach
        signal[_ellipse(x, y, stomach, stomach_radii + 3, stomach_angle) & below] = _FAT
        signal[_ellipse(x, y, stomach, stomach_radii, stomach_angle) & below] = _SPLEEN
        vertebra, vertebra_radii, vertebra_angle = self.vertebra
        signal[_ellipse(x, y, vertebra, vertebra_radii + 3, vertebra_angle)] = _MUSCLE
        signal[_ellipse(x, y, vertebra, vertebra_radii, vertebra_angle)] = 1.1 * _SPLEEN
        # Two pools of blood near the heart, one with a wall: the same trap.
        signal[_ellipse(x, y, self.aorta, (self.aorta_radius + 5,) * 2)] = _MYOCARDIUM
        signal[_ellipse(x, y, self.aorta, (self.aorta_radius,) * 2)] = _BLOOD
        signal[_ellipse(x, y, self.vena_cava, (self.vena_cava_radius, 1.3 * self.vena_cava_radius))] = 0.95 * _BLOOD
        return signal

    def _draw_atria(self, signal: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
        a, b, c, d = self.atria
        scale = self.lv_radius / 22
        for centre, radii in (((a, b), (22 * scale, 27 * scale)), ((c, d), (20 * scale, 18 * scale))):
            signal[_ellipse(x, y, centre, np.add(radii, 3))] = _MYOCARDIUM
            signal[_ellipse(x, y, centre, radii)] = _BLOOD

    def _draw_ventricles(
        self, signal: np.ndarray, labels: np.ndarray, x: np.ndarray, y: np.ndarray, level: float
    ) -> None:
        taper = _taper(level)
        inner = self.lv_radius * taper * np.array((self.elongation, 1 / self.elongation))
        outer = inner + self.wall * (0.7 + 0.3 * taper)
        lv, heart = _ellipse(x, y, (0, 0), inner, self.tilt), _ellipse(x, y, (0, 0), outer, self.tilt)

        rv_centre, rv_radii, width = self._right_ventricle(level, float(outer.mean()))
        rv = _ellipse(x, y, rv_centre, rv_radii, self.septum) & ~heart
        # Shifted against the heart, so that there is fat on one side of it and lung or liver on the other.
        signal[_ellipse(x, y, rv_centre + self.epicardial_fat, rv_radii + _RV_WALL + 2, self.septum)] = _FAT
        signal[_ellipse(x, y, 0.6 * self.epicardial_fat, outer + 2, self.tilt)] = _FAT
        signal[_ellipse(x, y, rv_centre, rv_radii + _RV_WALL, self.septum)] = _MYOCARDIUM  # its wall is not labelled
        if width < 7:  # towards its tip the right ventricle is all wall
            rv[:] = False
        signal[rv] = 0.94 * _BLOOD
        signal[heart] = _MYOCARDIUM
        signal[lv] = _BLOOD
        if level > 0.1:
            for angle in self.papillary:
                centre = 0.62 * inner.mean() * np.array((np.cos(angle), np.sin(angle)))
                signal[_ellipse(x, y, centre, (4.2 * taper, 3.2 * taper), angle)] = 1.15 * _MYOCARDIUM
        labels[heart], labels[lv], labels[rv] = LABELS["MYO"], LABELS["LV"], LABELS["RV"]


def _warped_grid(rng: np.random.Generator, rows: int, columns: int, in_plane: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions (mm, origin in the centre) of all sub-pixels, bent so that no organ stays an exact ellipse."""
    step = in_plane / _SUBPIXELS
    axes = [(np.arange(n * _SUBPIXELS) - (n * _SUBPIXELS - 1) / 2) * step for n in (rows, columns)]
    y, x = np.meshgrid(*axes, indexing="ij")
    for width, shift in ((28.0, 3.5), (10.0, 1.0)):
        x = x + shift * _smooth_noise(rng, x.shape, (width / step,) * 2)
        y = y + shift * _smooth_noise(rng, y.shape, (width / step,) * 2)
    return x, y


def _ellipse(x: np.ndarray, y: np.ndarray, centre, radii, angle: float = 0.0) -> np.ndarray:
    """Where an ellipse, turned by `angle`, covers the positions (x, y)."""
    dx, dy = x - centre[0], y - centre[1]
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    return (along / radii[0]) ** 2 + (across / radii[1]) ** 2 < 1


def _outline(centre: np.ndarray, radii: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions (x, y) on the border of such an ellipse."""
    turns = np.linspace(0, 2 * np.pi, 48)
    along, across = radii[0] * np.cos(turns), radii[1] * np.sin(turns)
    return (
        centre[0] + along * np.cos(angle) - across * np.sin(angle),
        centre[1] + along * np.sin(angle) + across * np.cos(angle),
    )


def _taper(level: float) -> float:
    """Radius of the ventricles at `level` by that at the base."""
    return float(np.sqrt(1 - (0.92 * level) ** 2))


def _label_pixels(labels: np.ndarray) -> np.ndarray:
    """(Y, X) labels of pixels by the majority of their sub-pixels; sections too small to outline become background."""
    rows, columns = (n // _SUBPIXELS for n in labels.shape)
    blocks = labels.reshape(rows, _SUBPIXELS, columns, _SUBPIXELS)
    votes = np.stack([(blocks == value).sum(axis=(1, 3)) for value in LABELS.values()])
    pixels = votes.argmax(axis=0).astype(np.uint8)
    for value in (1, 2, 3):
        if np.count_nonzero(pixels == value) < _SMALLEST_SECTION:
            pixels[pixels == value] = 0
    return pixels


# --- acquisition ------------------------------------------------------------------------------------------------------


def _acquire(rng: np.random.Generator, signal: np.ndarray, in_plane: float) -> np.ndarray:
    """Texture, blur, coil shading, noise and scale: (Z, Y * s, X * s) signal -> (Z, Y, X) image."""
    depth, rows, columns = signal.shape[0], *(n // _SUBPIXELS for n in signal.shape[1:])
    blur = rng.uniform(0.4, 0.6) * _SUBPIXELS
    blurred = gaussian_filter(signal, (0, blur, blur), mode="nearest")
    image = blurred.reshape(depth, rows, _SUBPIXELS, columns, _SUBPIXELS).mean(axis=(2, 4))
    for width, strength in ((9.0, 0.07), (4.0, 0.06)):  # mm: tissue is not uniform, flowing blood least of all
        texture = _smooth_noise(rng, image.shape, (0.4, width / in_plane, width / in_plane))
        image = image * (1 + strength * texture)
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    coil = rng.uniform(-0.6, 0.2), rng.uniform(-0.8, 0.2)  # the coil lies on the chest: left and above
    distance = (x - coil[0]) ** 2 + (y - coil[1]) ** 2
    shading = np.exp(-distance * rng.uniform(0.2, 0.45)) + 0.08 * _smooth_noise(rng, x.shape, (rows / 4, columns / 4))
    image = image * shading
    sigma = rng.uniform(2.0, 4.0)
    real, imaginary = (rng.normal(0, sigma, image.shape) for _ in range(2))
    return (rng.uniform(0.7, 3.0) * np.hypot(image + real, imaginary)).astype(np.float32)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], widths: tuple[float, ...]) -> np.ndarray:
    """Noise of mean 0 and deviation 1 that varies over `widths` (grid steps along each axis)."""
    # Drawn on a grid as coarse as the widths allow, then enlarged: wide filters on fine grids are slow.
    factors = [max(1.0, width / 2) for width in widths]
    coarse = rng.standard_normal([int(np.ceil(n / f)) + 1 for n, f in zip(shape, factors, strict=True)])
    coarse = gaussian_filter(coarse, [w / f for w, f in zip(widths, factors, strict=True)], mode="reflect")
    fine = zoom(coarse, [n / m for n, m in zip(shape, coarse.shape, strict=True)], order=1)
    return (fine - fine.mean()) / fine.std()


# --- scribbles --------------------------------------------------------------------------------------------------------


def _scribble(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """(Z, Y, X) strokes in every class that a slice shows, none of them beyond its class."""
    scribble = np.full(labels.shape, UNLABELLED, np.uint8)
    heart_columns, heart_rows = (np.flatnonzero((labels > 0).any(axis=axes)) for axes in ((0, 1), (0, 2)))
    box = heart_rows[0], heart_rows[-1], heart_columns[0], heart_columns[-1]
    for section, strokes in zip(labels, scribble, strict=True):
        for value in np.unique(section[section > 0]):
            mask = section == value
            # The level set of this field runs through the middle of the class: half-way into a wall, or around a pool.
            depth = distance_transform_edt(mask)
            if value == LABELS["MYO"]:
                field = distance_transform_edt(section != LABELS["LV"])
                level = 0.5 * (1 + float(field[mask].max()) * 0.85)
            else:
                field, level = depth, rng.uniform(0.4, 0.6) * float(depth.max())
            stroke = draw_line(
                part_of_line(rng, level_line(field, level), _COVERAGE[int(value)] * mask.sum()), 1.0, mask
            )
            if not stroke.any():
                stroke = depth == depth.max()
            strokes[stroke] = value
        background = section == 0
        if background.all():
            line = zigzag(rng, box)
        else:
            distance = distance_transform_edt(background)
            line = level_line(distance, rng.uniform(2.5, 4.5))
            line = part_of_line(rng, line, rng.uniform(0.4, 0.8) * len(line))
        strokes[draw_line(line, 1.0, background)] = LABELS["background"]
    return scribble
