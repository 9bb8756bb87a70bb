"""How many columns, rows and coils a volume has: one size for all, or as in a real file's header."""

from dataclasses import dataclass

from morelib.data.phantom.protocol import Protocol

# What `size` and `coils` stand for where matrices follow the real table: its commonest matrix, its most coils.
REAL_SIZE, REAL_COILS = 320, 28

Rectangle = tuple[int, int, int, int]


@dataclass(frozen=True)
class Matrix:
    """readout, phase: the encoded matrix, the readout covering twice the field of view; recon: (h, w)."""

    readout: int
    phase: int
    recon: tuple[int, int]
    coils: int

    @property
    def target(self) -> tuple[int, int]:
        """(h, w) of the target: the header's reconstruction size, cut to the encoded matrix.

        Where the scanner interpolated (512 x 512 from 512 x 276) the target stays as measured: interpolation
        adds no information, and the centre crop of the RSS image is what fastMRI's readers make.
        """
        return min(self.recon[0], self.readout), min(self.recon[1], self.phase)

    def extent(self, fov: float) -> tuple[float, float]:
        """(height, width) in mm that is drawn: half the readout, and all phase columns. Pixels are square."""
        return fov, 2 * fov * self.phase / self.readout

    def points(self, fine: int) -> tuple[int, int]:
        """(rows, columns) of points drawn, `fine` per pixel and axis."""
        return fine * self.readout // 2, fine * self.phase

    def to_target(self, rows: tuple[int, int], columns: tuple[int, int], fine: int) -> Rectangle | None:
        """(x, y, width, height) in target pixels around the drawn points first to last; None if outside."""
        box = []
        for (first, last), drawn, encoded, kept in zip(
            (columns, rows),
            self.points(fine)[::-1],
            (self.phase, self.readout),
            self.target[::-1],
            strict=True,
        ):
            # Point `drawn // 2` is pixel `encoded // 2`, before the centre crop.
            shift = encoded // 2 - (encoded - kept) // 2
            low = max((first - drawn // 2) // fine + shift, 0)
            high = min(-((drawn // 2 - last) // fine) + shift, kept - 1)
            if low > high:
                return None
            box.append((low, high - low + 1))
        (x, width), (y, height) = box
        return x, y, width, height


def square_matrix(size: int, coils: int) -> Matrix:
    """Target of size x size, k-space of 2 * size x size."""
    return Matrix(2 * size, size, (size, size), coils)


def real_matrix(protocol: Protocol, size: int, coils: int) -> Matrix:
    """The protocol's matrix and coils, in the ratios size / 320 and coils / 28; at least two coils."""
    x, y, high, wide = (
        # Even stays even, odd stays odd; at full size all are as in the table.
        n % 2 + 2 * round((n - n % 2) * size / REAL_SIZE / 2)
        for n in (protocol.encoded_x, protocol.encoded_y, protocol.recon_x, protocol.recon_y)
    )
    return Matrix(x, y, (high, wide), max(2, round(protocol.coils * coils / REAL_COILS)))
