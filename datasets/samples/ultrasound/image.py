"""One synthetic B-mode image of the tibialis anterior muscle: anatomy, scatterers, scanner.

The image is made the way a scanner makes it. Tissue is a map of echo strength, with a random complex
scatterer at every point. The point spread function, wider at depth, turns the scatterers into speckle with
Rayleigh statistics (Wagner et al. 1983, IEEE Trans Sonics Ultrason 30:156). Attenuation, time gain and log
compression follow; text and ruler come last. All lengths are pixels of the published images, 480 rows by 504
columns; the origin is at the top left.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter, gaussian_filter1d

HEIGHT, WIDTH = 480, 504
AXIAL_BLUR = 1.3  # sigma of the point spread function down the beam; measured on real images
LATERAL_BLUR = (2.8, 5.2)  # and across the beam, at the skin and at the bottom
LOOKS = 3  # number of beam directions averaged (compounding)
DYNAMIC_RANGE, GAMMA = 60.0, 2.1  # dB between black and white, and the exponent of the scanner's grey map
NOISE_FLOOR = 10 ** (-44 / 20)
ROWS = np.arange(HEIGHT, dtype=np.float32)[:, None]
COLUMNS = np.arange(WIDTH, dtype=np.float32)[None]


class Anatomy:
    """The geometry that all views of a person share. fatness: standard deviations of the body mass index."""

    def __init__(self, rng: np.random.Generator, muscle_age: float, fatness: float):
        # Growth ends at about 16 years; a child's muscle has 0.6 of an adult's size in each direction.
        size = 0.58 + 0.42 * (1 - np.exp(-max(muscle_age, 0.0) / 7.0)) / (1 - np.exp(-88 / 7.0))
        young = 1 - (size - 0.58) / 0.42
        self.size = size = size * float(np.exp(rng.normal(0, 0.035)))  # of the muscle, 1 = an adult's
        # Thickness of skin and fat, and curvature of the surface
        self.fat = float(np.clip(24 + 8 * fatness + 14 * young + rng.normal(0, 4), 10, 80))
        self.arch = float(rng.uniform(6, 18) + 16 * young)
        # Top of the bone edge: rows below the fascia, column. Where the bone meets the membrane: row, column
        self.tibia = (float(rng.uniform(5, 45) + 20 * young), float(rng.uniform(-10, 40) + 25 * young))
        self.corner = (float(rng.uniform(235, 280) * size), float(rng.uniform(85, 185) + 25 * young))
        self.reach = float(370 * size**0.5 + rng.normal(0, 16))  # column where the muscle ends
        self.tilt = float(rng.normal(0.05, 0.07))  # slope of the membrane
        self.seed = int(rng.integers(2**32))  # of the fibre pattern


def render(
    anatomy: Anatomy, seed: int, *, muscle_age: float, gain: float, move: tuple[float, float], shade: float,
    septa: float, text: str, left: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """One recording: (image, mask), both uint8 (480, 504); the mask is 255 on the muscle.

    Everything that ages depends on muscle_age (years), nothing else does. gain: dB. move: shift of the probe,
    rows and columns. shade: dB of lost contact at the right edge. septa: dB; more if the beam meets the septa
    squarely. text is printed from column `left` on."""
    rng = np.random.default_rng(seed)
    effect = ageing(muscle_age)
    fascia, bone, floor, polygon = _outline(anatomy, move)
    muscle = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(muscle).polygon([tuple(point) for point in polygon], fill=255)
    mask = np.asarray(muscle)
    inside = gaussian_filter(mask.astype(np.float32) / 255, 3)

    echo = _tissue(anatomy, effect, move, inside, fascia, rng)  # dB, (480, 504)
    echo += _fibres(anatomy, effect, move, septa, inside, fascia, floor, rng)
    echo = _surfaces(echo, anatomy, move, fascia, bone, floor, rng)
    return _screen(echo, gain, shade, text, left, rng), mask


def _outline(anatomy: Anatomy, move: tuple[float, float]):
    """(rows of fascia, bone and floor in each column (504,), NaN where absent; muscle polygon (P, 2))."""
    down, right = move
    x = np.arange(WIDTH, dtype=np.float32)
    fascia = 12 + anatomy.fat + anatomy.arch * ((x - right - 230) / 250) ** 2
    top_column = anatomy.tibia[1] + right
    top_row = np.interp(max(top_column, 0), x, fascia) + anatomy.tibia[0] + down
    corner_row, corner_column = anatomy.corner[0] + 12 + anatomy.fat * 0.6 + down, anatomy.corner[1] + right
    corner_row = max(corner_row, top_row + 60)
    t = np.clip((x - top_column) / (corner_column - top_column), -1, 1)
    bone = top_row + np.where(t > 0, (corner_row - top_row) * np.abs(t) ** 2.1, 26 * t**2)
    bone[x > corner_column] = np.nan
    floor = corner_row + anatomy.tilt * (x - corner_column) + 9 * np.sin((x - corner_column) / 60)
    floor[x < corner_column] = np.nan
    end = anatomy.reach + right
    start = max(top_column + 4, 0)
    left, bottom = (x >= start) & (x <= corner_column), (x > corner_column) & (x < end - 90 * anatomy.size)
    lower = np.stack([np.r_[x[left], x[bottom]], np.r_[bone[left], floor[bottom]] - 5], 1)
    angle = np.linspace(0, np.pi / 2, 12)[1:-1]  # the right end, rounded
    end_x, end_y = lower[-1]
    top_y = float(np.interp(end, x, fascia)) + 8
    round_end = np.stack([end_x + (end - end_x) * np.sin(angle), top_y + (end_y - top_y) * np.cos(angle)], 1)
    top = x[(x >= start) & (x <= end)][::-1]
    upper = np.stack([top, np.interp(top, x, fascia) + 6], 1)
    return fascia, bone, floor, np.concatenate([lower, round_end, upper])


def ageing(muscle_age: float) -> dict[str, float]:
    """How age changes a muscle, as fat and fibrous tissue replace fibres; every entry is monotonic."""
    grown = np.clip(muscle_age, -5, 100) / 88
    return {
        "level": -37.0 + 13.0 * grown,  # dB: the muscle gets brighter
        "contrast": 3.4 - 2.0 * grown,  # dB: the dark bundles between the bright septa fill up
        "septa": 22.5 - 7.5 * grown,  # dB: the septa lose strength
        "blur": 0.65 + 0.5 * max(grown, 0),  # pixels: and sharpness
    }


def _tissue(anatomy, effect, move, inside, fascia, rng) -> np.ndarray:
    """Echo strength of muscle, fat and deeper tissue, with slow variation; dB, (480, 504)."""
    fixed = np.random.default_rng(anatomy.seed)
    # Bundles of fibres, about 40 x 25 pixels, the same in all views of a person.
    bundles = np.roll(_smooth_noise(fixed, 9, 15), [round(step) for step in move], axis=(0, 1))
    clouds = _smooth_noise(fixed, 34, 60)
    level = effect["level"] + effect["contrast"] * bundles
    # The neighbouring muscles age too, but it shows less; deep tissue is brighter and blurred.
    deep = -28.2 + 2.4 * clouds + 1.4 * bundles + 0.25 * (effect["level"] + 28)
    echo = inside * level + (1 - inside) * deep
    depth = (ROWS - 10) / np.maximum(fascia[None] - 10, 4)
    top = slice(0, int(np.nanmax(fascia)) + 4)
    stripes = _smooth_noise(rng, 1.6, 50)[top]
    # Skin and fat: darker than the fascia, striped along it, brightest at the skin.
    fat = -30.0 + 3.5 * stripes + 6 * np.exp(-depth[top] * 4)
    echo[top] = np.where(depth[top] < 1, fat, echo[top])
    return echo.astype(np.float32)


def _fibres(anatomy, effect, move, septa, inside, fascia, floor, rng) -> np.ndarray:
    """Septa: short bright dashes everywhere, a few long ones in the muscle. dB to add to the tissue."""
    fixed = np.random.default_rng(anatomy.seed + 1)
    canvas = Image.new("L", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(canvas)
    down, right = move
    for generator, count, moved in ((fixed, 340, 1), (rng, 310, 0)):  # of the person, of this view alone
        x = generator.uniform(0, WIDTH, count) + moved * right
        y = generator.uniform(20, HEIGHT, count) + moved * down
        length = generator.gamma(1.8, 15.0, count)
        slope = generator.normal(0, 0.14, count) + 0.2 * np.sin(x / 90 + y / 130)
        bend = generator.normal(0, 1.6, count)
        bright = 255 * generator.beta(1.4, 2.1, count)
        for k in range(count):
            dx, dy = length[k] / 2, slope[k] * length[k] / 2
            dash = [(x[k] - dx, y[k] - dy), (x[k], y[k] + bend[k]), (x[k] + dx, y[k] + dy)]
            draw.line(dash, fill=int(bright[k]), width=1 + int(bright[k] > 110))
    # The central aponeurosis and a few long septa run down to the right.
    top = np.interp(200 + right, np.arange(WIDTH), fascia) + 35 * anatomy.size
    height = max(np.nanmean(floor) - top, 40)
    for k in range(fixed.integers(3, 8)):
        x0, y0 = fixed.uniform(95, 220), top + fixed.uniform(0.0, 0.6) * height
        reach, drop = fixed.uniform(50, 140) * anatomy.size, fixed.uniform(-0.15, 0.6)
        xs = np.linspace(0, reach, 12)
        ys = y0 + drop * xs + fixed.normal(0, 1.2, 12).cumsum() + 7 * np.sin(xs / reach * np.pi)
        path = [(a + x0 + right, b + down) for a, b in zip(xs, ys, strict=True)]
        draw.line(path, fill=int(fixed.uniform(130, 240)), width=2 + int(k == 0))
    blur = effect["blur"], 1.5 * effect["blur"]
    bright = gaussian_filter(np.asarray(canvas, dtype=np.float32) / 255, blur, truncate=2.5)
    grain = np.maximum(_smooth_noise(rng, 1.4, 4.5) - 1.0, 0)  # the finest septa
    strength = inside * effect["septa"] + (1 - inside) * 17.5 + septa
    depth = np.clip(1.2 - 0.45 * ROWS / HEIGHT, 0, 1)  # deep ones reflect less
    below_skin = fascia[None] < ROWS
    echo = np.where(below_skin, depth * strength * (2.0 * bright + 0.6 * grain), 3 * bright)
    return echo.astype(np.float32)


def _surfaces(echo, anatomy, move, fascia, bone, floor, rng) -> np.ndarray:
    """Add fascia, bone edge and membrane, which reflect like mirrors, and the shadow of the bone."""
    wobble = gaussian_filter1d(rng.normal(0, 1, WIDTH), 12) * 4
    breaks = gaussian_filter1d(rng.normal(0, 1, (4, WIDTH)), 14, axis=1) * 14
    _add_line(echo, fascia + 0.4 * wobble, np.clip(13 + breaks[0], 6, 19), 2.0)
    _add_line(echo, 0.55 * fascia + 5 + 0.3 * wobble, np.clip(6 + breaks[1], 0, 12), 1.5)
    fade = np.clip(1 - (COLUMNS[0] - anatomy.corner[1]) / (230 * anatomy.size), 0, 1)
    _add_line(echo, floor + wobble, np.clip(19 + breaks[2], 8, 23) * fade, 2.2)
    # Behind the bone there are only reverberations, weakest close to it; the shadow's edge follows the beam.
    corner = anatomy.corner[1] + move[1]
    part = slice(0, min(int(corner) + 80, WIDTH))
    columns = COLUMNS[:, part]
    under = ROWS - np.nan_to_num(bone, nan=1e4)[None, part]
    lost = 25 - 9 * np.clip((under - 60) / 250, 0, 1) + 6 * np.clip(1 - np.abs(under - 35) / 50, 0, 1)
    spill = (columns >= corner - 1) * np.clip(1 - (columns - corner) / 50, 0, 1)
    spill = spill * np.clip((ROWS - np.nanmin(floor)) / 12, 0, 1)
    shadow = gaussian_filter1d(np.maximum(under > 2, spill), 7, axis=1)
    echo[:, part] -= np.where(under > -1e3, lost, 18) * shadow
    slab = slice(max(int(np.nanmin(bone)) - 12, 0), int(np.nanmax(bone)) + 45)
    under = under[slab]
    edge = np.exp(-0.5 * (under / 3.4) ** 2) + 0.35 * np.exp(-np.clip(under, 0, 200) / 12) * (under > 0)
    peak = np.clip(30 + 0.6 * breaks[3], 22, 34)[None, part]
    bright = np.where(edge > 0.05, -36 + (peak + 2) * np.minimum(edge, 1), -99)
    echo[slab, part] = np.maximum(echo[slab, part], bright)
    return echo


def _add_line(echo: np.ndarray, rows: np.ndarray, strength: np.ndarray, width: float) -> None:
    """Add a line in place: its row in each column (NaN = none), strength in dB, width = sigma in pixels."""
    slab = slice(max(int(np.nanmin(rows) - 3 * width), 0), int(np.nanmax(rows) + 3 * width) + 1)
    distance = ROWS[slab] - np.nan_to_num(rows, nan=-1e4)[None]
    echo[slab] += strength[None] * np.exp(-0.5 * (distance / width) ** 2)


def _speckle(rng: np.random.Generator) -> np.ndarray:
    """Envelope of fully developed speckle averaged over LOOKS, (480, 504), mean square 1."""
    half = WIDTH // 2  # wide speckle needs every other column only
    depth = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None]
    power = np.zeros((HEIGHT, half), np.float32)
    for _ in range(2):  # in phase and in quadrature
        field = rng.standard_normal((HEIGHT, half), dtype=np.float32)
        field = gaussian_filter1d(field, AXIAL_BLUR, axis=0, truncate=3)
        near, far = (
            gaussian_filter1d(field, sigma / 2, axis=1, mode="wrap", truncate=3) * np.float32(sigma**0.5)
            for sigma in LATERAL_BLUR
        )
        power += ((1 - depth) * near + depth * far) ** 2
    # Compounding averages independent looks; this field is independent of itself some columns further on.
    power = sum(np.roll(power, k * half // LOOKS, axis=1) for k in range(LOOKS))
    power /= power.mean(axis=1, keepdims=True)
    full = np.repeat(power, 2, axis=1)
    full[:, 1:-1:2] = (power[:, :-1] + power[:, 1:]) / 2
    return np.sqrt(full)


def _screen(echo, gain, shade, text, left, rng) -> np.ndarray:
    """Apply speckle, time gain, lost contact and log compression to 8 bits, then the scanner's print."""
    amplitude = gaussian_filter(np.exp(echo * np.float32(np.log(10) / 20)), (0.7, 1.3), truncate=2.5)
    decibel = 20 * np.log10(amplitude * _speckle(rng) + NOISE_FLOOR)
    decibel += np.float32(gain + 1.8) - 2.5 * np.clip((ROWS - 250) / 230, 0, 1)
    decibel -= shade * np.clip((COLUMNS - 380) / 124, 0, 1) ** 2 + 2.5 * np.clip(1 - COLUMNS / 60, 0, 1)
    grey = np.clip(1 + decibel / DYNAMIC_RANGE, 0, 1) ** GAMMA * 255
    grey[:6] *= 0.05
    grey[8:11] = np.maximum(grey[8:11], 90 + rng.normal(0, 8, (1, WIDTH)))  # the face of the probe
    image = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, HEIGHT - 4, WIDTH, HEIGHT], fill=0)
    for k, x in enumerate(range(17, WIDTH, 54)):  # ruler, half a centimetre per tick
        draw.line([(x, HEIGHT - 2 - 4 * (k % 2 == 0)), (x, HEIGHT - 1)], fill=220)
    font = ImageFont.load_default(size=14)
    for k, letter in enumerate(text):  # fixed pitch, like a scanner's
        draw.text((left + 5 + 10 * k, 426), letter, fill=222, font=font, anchor="mm")
    return np.asarray(image)


def _smooth_noise(rng: np.random.Generator, rows: float, columns: float) -> np.ndarray:
    """Gaussian noise of unit variance, correlated over the given sigmas in pixels, (480, 504) float32."""
    # Made on a grid of half a sigma and enlarged: smooth noise needs no finer grid.
    step = (max(1, int(rows / 2)), max(1, int(columns / 2)))
    shape = (HEIGHT // step[0] + 2, WIDTH // step[1] + 2)
    sigmas = rows / step[0], columns / step[1]
    small = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigmas, truncate=2.5)
    small /= max(float(small.std()), 1e-6)
    if step == (1, 1):
        return small[:HEIGHT, :WIDTH]
    large = Image.fromarray(small).resize((shape[1] * step[1], shape[0] * step[0]), Image.Resampling.BILINEAR)
    return np.asarray(large)[:HEIGHT, :WIDTH]
