"""ELF files read in pure Python: sections with their load addresses, symbols, Arm's build attributes.

Format: System V ABI, chapters 4 and 5; ELF for the Arm Architecture (IHI 0044) and its addenda (IHI 0045) for
the build attributes. Every offset and count is checked against the file, so a damaged file is an error and
never an exception or a long wait.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from edgekit.errors import ModelError

__all__ = ["Elf", "FileType", "Machine", "Section", "SectionFlag", "Symbol", "arm_attributes", "parse_elf"]

_MAX_SECTIONS: Final = 65_536
_MAX_SYMBOLS: Final = 1_000_000
_MAX_NAME: Final = 4096

_SHT_SYMTAB: Final = 2
_SHT_NOBITS: Final = 8
_SHT_ARM_ATTRIBUTES: Final = 0x7000_0003
_PT_LOAD: Final = 1


class Machine(IntEnum):
    """`e_machine` of the cores that edgekit builds for."""

    X86_64 = 62
    ARM = 40
    AARCH64 = 183
    RISCV = 243


class FileType(IntEnum):
    """`e_type`."""

    OBJECT = 1
    EXECUTABLE = 2
    SHARED = 3


class SectionFlag(IntFlag):
    """`sh_flags`, the ones that matter for sizes."""

    WRITE = 1
    ALLOC = 2
    CODE = 4


@dataclass(frozen=True, slots=True)
class Section:
    """One section. `address` is where it runs, `load_address` where its bytes are stored."""

    name: str
    flags: int
    address: int
    load_address: int
    size_bytes: int
    stored: bool
    """False for .bss-like sections, which take memory but no room in the image."""
    data: bytes
    """Contents; empty unless `stored`."""

    def has(self, flag: SectionFlag) -> bool:
        return bool(self.flags & flag)


@dataclass(frozen=True, slots=True)
class Symbol:
    """One symbol; `defined` is False for what another object has to provide."""

    name: str
    value: int
    size_bytes: int
    defined: bool
    local: bool


@dataclass(frozen=True, slots=True)
class Elf:
    """What edgekit needs to know of an ELF file."""

    bits: int
    """32 or 64."""
    type: int
    machine: int
    flags: int
    """`e_flags`."""
    entry: int
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]

    def section(self, name: str) -> Section | None:
        return next((section for section in self.sections if section.name == name), None)


@dataclass(frozen=True, slots=True)
class _Layout:
    """The three records whose fields differ between the classes, as struct formats and field positions."""

    header: str
    section: str
    segment: str
    symbol: str


_LAYOUTS: Final = {
    1: _Layout("HHIIIIIHHHHHH", "IIIIIIIIII", "IIIIIIII", "IIIBBH"),
    2: _Layout("HHIQQQIHHHHHH", "IIQQQQIIQQ", "IIQQQQQQ", "IBBHQQ"),
}


@dataclass(frozen=True, slots=True)
class _Segment:
    offset: int
    address: int
    load_address: int
    memory_size: int


@dataclass(frozen=True, slots=True)
class _RawSection:
    name_offset: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    entry_size: int


class _Reader:
    """Bounds-checked access to the file's bytes."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.where = where

    def fail(self, what: str) -> ModelError:
        return ModelError(f"{self.where}: not a sound ELF file: {what}")

    def slice(self, offset: int, size: int, what: str) -> bytes:
        if offset < 0 or size < 0 or offset + size > len(self.data):
            raise self.fail(f"{what} lies outside the file")
        return self.data[offset : offset + size]

    def records(self, form: str, offset: int, count: int, size: int, what: str) -> Iterator[tuple[int, ...]]:
        if count and size != struct.calcsize(form):
            raise self.fail(f"{what} has records of {size} bytes")
        return struct.iter_unpack(form, self.slice(offset, count * size, what))


def parse_elf(data: bytes, where: str) -> Elf:
    """Reads an ELF32 or ELF64 file of either byte order.

    Args:
        data: The whole file.
        where: What to call it in an error, safe to print.

    Raises:
        ModelError: it is no ELF file, or a damaged one.
    """
    reader = _Reader(data, where)
    ident = reader.slice(0, 16, "the header")
    if ident[:4] != b"\x7fELF" or ident[4] not in _LAYOUTS or ident[5] not in (1, 2):
        raise reader.fail("wrong magic number")
    layout = _LAYOUTS[ident[4]]
    order = "<" if ident[5] == 1 else ">"
    header_form = order + layout.header
    header = struct.unpack(header_form, reader.slice(16, struct.calcsize(header_form), "the header"))
    (type_, machine, _, entry, segments_at, sections_at, flags) = header[:7]
    (_, segment_size, segment_count, section_size, section_count, names_index) = header[7:]

    if section_count > _MAX_SECTIONS or (sections_at == 0 and section_count):
        raise reader.fail("impossible section count")
    segments = [
        _segment(record, ident[4])
        for record in reader.records(
            order + layout.segment, segments_at, segment_count, segment_size, "the program header"
        )
        if record[0] == _PT_LOAD
    ]
    raw = [
        _RawSection(r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[9])
        for r in reader.records(
            order + layout.section, sections_at, section_count, section_size, "the section table"
        )
    ]
    names = _bytes_of(reader, raw[names_index], "section names") if names_index < len(raw) else b""
    sections = tuple(_section(reader, item, names, segments) for item in raw)
    symbols = tuple(
        symbol
        for item in raw
        if item.type == _SHT_SYMTAB
        for symbol in _symbols(reader, item, raw, order + layout.symbol, ident[4])
    )
    return Elf(32 * ident[4], type_, machine, flags, entry, sections, symbols)


def _segment(record: tuple[int, ...], class_: int) -> _Segment:
    if class_ == 1:
        _, offset, address, load_address, _, memory_size, _, _ = record
    else:
        _, _, offset, address, load_address, _, memory_size, _ = record
    return _Segment(offset, address, load_address, memory_size)


def _bytes_of(reader: _Reader, section: _RawSection, what: str) -> bytes:
    if section.type == _SHT_NOBITS:
        return b""
    return reader.slice(section.offset, section.size, what)


def _text(reader: _Reader, table: bytes, offset: int) -> str:
    end = table.find(b"\0", offset, offset + _MAX_NAME)
    if offset > len(table) or (end < 0 and table):
        raise reader.fail("a name lies outside its table")
    return table[offset : max(end, offset)].decode("utf-8", "replace")


def _section(reader: _Reader, raw: _RawSection, names: bytes, segments: list[_Segment]) -> Section:
    name = _text(reader, names, raw.name_offset)
    load_address = raw.address
    if raw.flags & SectionFlag.ALLOC:
        for segment in segments:
            # A zero-sized or .bss section at a segment's very end belongs to it as well.
            if (
                segment.address <= raw.address
                and raw.address + raw.size <= segment.address + segment.memory_size
            ):
                load_address = segment.load_address + raw.address - segment.address
                break
    stored = raw.type != _SHT_NOBITS
    return Section(
        name=name,
        flags=raw.flags,
        address=raw.address,
        load_address=load_address,
        size_bytes=raw.size,
        stored=stored,
        data=_bytes_of(reader, raw, "a section") if stored else b"",
    )


def _symbols(
    reader: _Reader, table: _RawSection, sections: list[_RawSection], form: str, class_: int
) -> Iterator[Symbol]:
    record_size = struct.calcsize(form)
    count = table.size // record_size
    if count > _MAX_SYMBOLS or table.link >= len(sections):
        raise reader.fail("impossible symbol table")
    names = _bytes_of(reader, sections[table.link], "symbol names")
    for record in reader.records(form, table.offset, count, table.entry_size, "the symbol table"):
        if class_ == 1:
            name, value, size, info, _, index = record
        else:
            name, info, _, index, value, size = record
        if name:
            yield Symbol(_text(reader, names, name), value, size, defined=index != 0, local=info >> 4 == 0)


# IHI 0045: tags whose value is a NUL-terminated string; above 32, odd tags are strings and even ones numbers.
_STRING_TAGS: Final = frozenset({4, 5, 67})
_FILE_SCOPE: Final = 1
_COMPATIBILITY_TAG: Final = 32


def arm_attributes(elf: Elf) -> dict[int, int]:
    """The numeric build attributes of an Arm object, by tag; empty where it has none.

    Raises:
        ModelError: the attributes section is damaged.
    """
    section = elf.section(".ARM.attributes")
    if section is None or not section.data:
        return {}
    data = section.data
    if data[0] != ord("A"):
        raise ModelError("damaged .ARM.attributes: unknown version")
    found: dict[int, int] = {}
    try:
        position = 1
        while position < len(data):
            (length,) = struct.unpack_from("<I", data, position)
            if length < 5:
                raise ValueError
            end = min(position + length, len(data))
            vendor_end = data.index(b"\0", position + 4, end)
            if data[position + 4 : vendor_end] == b"aeabi":
                found.update(_file_attributes(data[vendor_end + 1 : end]))
            position += length
    except (ValueError, IndexError, struct.error):
        raise ModelError("damaged .ARM.attributes") from None
    return found


def _file_attributes(data: bytes) -> dict[int, int]:
    """The attributes that hold for the whole file, out of one vendor's subsections."""
    found: dict[int, int] = {}
    position = 0
    while position < len(data):
        scope = data[position]
        (length,) = struct.unpack_from("<I", data, position + 1)
        if length < 5:
            raise ValueError
        if scope == _FILE_SCOPE:
            found.update(_tags(data[position + 5 : position + length]))
        position += length
    return found


def _tags(data: bytes) -> dict[int, int]:
    found: dict[int, int] = {}
    position = 0
    while position < len(data):
        tag, position = _uleb128(data, position)
        if tag == _COMPATIBILITY_TAG:
            _, position = _uleb128(data, position)
        if tag in _STRING_TAGS or tag == _COMPATIBILITY_TAG or (tag > _COMPATIBILITY_TAG and tag % 2):
            position = data.index(b"\0", position) + 1
        else:
            found[tag], position = _uleb128(data, position)
    return found


def _uleb128(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError
