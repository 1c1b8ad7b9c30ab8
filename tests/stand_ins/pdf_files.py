"""PDF files made by hand: a page a text, in Helvetica; a blank text is a page with a grey square alone."""

from __future__ import annotations


def make_pdf(*texts: str, title: str = "", encrypted: bool = False) -> bytes:
    """A PDF file; `encrypted` has one that no password opens."""
    pages = [f"{4 + 2 * number} 0 R" for number in range(len(texts))]
    objects = [
        f"<< /Title ({title}) >>",
        f"<< /Type /Pages /Kids [{' '.join(pages)}] /Count {len(texts)} >>",
        "<< /Type /Catalog /Pages 2 0 R >>",
    ]
    for number, text in enumerate(texts):
        shown = f"BT /F1 24 Tf 72 700 Td ({text}) Tj ET" if text else "0.5 g 100 100 200 200 re f"
        objects += [
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 "
            f"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> /Contents {5 + 2 * number} 0 R >>",
            f"<< /Length {len(shown)} >>\nstream\n{shown}\nendstream",
        ]
    lock = f" /ID [<00> <00>] /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <{'ab' * 32}> /U <{'cd' * 32}> >>"
    written = "%PDF-1.4\n"
    places = []
    for number, each in enumerate(objects, 1):
        places.append(len(written))
        written += f"{number} 0 obj\n{each}\nendobj\n"
    start = len(written)
    written += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n"
    written += "".join(f"{place:010} 00000 n \n" for place in places)
    written += f"trailer << /Size {len(objects) + 1} /Root 3 0 R /Info 1 0 R{lock if encrypted else ''} >>\n"
    return f"{written}startxref\n{start}\n%%EOF\n".encode()
