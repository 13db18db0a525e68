# ruff: noqa: E501
"""Texts with personal data in the forms of public documents, and texts that look like it.

Written without a look at what `llm/text/personal_data.py` finds: forms of RFC 3696, 3966, 5952, 6531
and 6750, ITU E.123, ISO 13616 and 7812, of the numbering plans and identity numbers of
countries, and of what issuers of keys document. A line is (text, (kind, what is to be
found), …). Half of the lines, by a hash, are for development; patterns were made without
the others (`HELD_OUT`), which say how well they work. Keys are put together here, so
that no scanner takes them for real.
"""

import hashlib

_HEX = "0123456789abcdef"
_H32 = "9f86d081884c7d65" + "9a2feaa0c55ad015"
_H40 = _H32 + "a3bf4f1b"
_H64 = _H32 + "a3bf4f1b2b0b822cd15d6c15b0f00a08"
_MIX = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6"
_B64 = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq"
    + "/K1SZFPTOtr/KBHBeksoGMGw=="
)
_NB = "\u00a0"


def _(kind, text, span=None):
    return text, (kind, span or text)


FOUND = (
    # e-mail in other scripts (RFC 6531), of newer domains, quoted and hidden
    _("email", "用户@例子.广告"), _("email", "अजय@डाटा.भारत"), _("email", "квіточка@пошта.укр"),
    _("email", "почта: коля@пример.рф.", "коля@пример.рф"),
    _("email", "Γράψτε στο χρήστης@παράδειγμα.ελ τώρα", "χρήστης@παράδειγμα.ελ"),
    _("email", "Dörte@Sörensen.example.com"), _("email", "user@xn--fsqu00a.xn--0zwm56d"),
    _("email", "mail 山田@例え.jp please", "山田@例え.jp"),
    _("email", "Shoot: jane@studio.photo", "jane@studio.photo"),
    _("email", "mary@acme.consulting, mgr", "mary@acme.consulting"), _("email", "x.y@team.ninja"),
    _("email", "sales@acme.gmbh"), _("email", "ann@lab.bio"), _("email", "help@mysite.support"),
    _("email", "kim@food.recipes"), _("email", "dev@cats.fyi"), _("email", "me@family.rocks"),
    _("email", "press@museum.art!", "press@museum.art"), _("email", "joe@shop.reviews"),
    _("email", "write jane [at] example [dot] com", "jane [at] example [dot] com"),
    _("email", "jane(at)example.org"), _("email", "jane AT example DOT com"),
    _("email", "bob.lee@example[.]com"), _("email", "john.doe [at] uni-mainz.de"),
    _("email", "info{at}example{dot}net"), _("email", "a.b (at) c-d.example (dot) co (dot) uk"),
    _("email", "customer/department=shipping@example.com"), _("email", "user.name+tag+sorting@example.co"),
    _("email", "<a href='mailto:o.k@example.dev'>", "o.k@example.dev"),
    _("email", "CC: A.Person@Example.EDU;", "A.Person@Example.EDU"),
    # IP (RFC 5952, RFC 4291)
    _("ip", "::ffff:8.8.8.8"), _("ip", "from ::FFFF:151.101.1.140 port 22", "::FFFF:151.101.1.140"),
    _("ip", "2607:f8b0:4005:080a:0000:0000:0000:200e"), _("ip", "2a00:1450:4001:81b::200e"),
    _("ip", "[2001:4860:4860::8844]:443", "2001:4860:4860::8844"),
    _("ip", "2400:cb00:2048:1::c629:d7a2/64", "2400:cb00:2048:1::c629:d7a2"),
    _("ip", "client 185.199.108.153 - - [10/Oct/2020]", "185.199.108.153"),
    _("ip", "from=52.95.110.1, ok", "52.95.110.1"), _("ip", "198.41.0.4 is a.root-servers.net", "198.41.0.4"),
    _("ip", "inet addr:91.189.91.39", "91.189.91.39"), _("ip", "Received: from x ([104.16.132.229])", "104.16.132.229"),
    _("ip", "2A02:2E0:3FE:1001:302::"), _("ip", "http://[2606:4700:4700::1001]/", "2606:4700:4700::1001"),
    _("ip", "ssh root@45.33.32.156", "45.33.32.156"), _("ip", "nameserver 9.9.9.9", "9.9.9.9"),
    # phones as numbering plans and E.123 write them
    _("phone", "(11) 91234-5678"), _("phone", "+55 11 91234-5678"), _("phone", "Fone (21) 2345-6789", "(21) 2345-6789"),
    _("phone", "WhatsApp: 11 98765-4321", "11 98765-4321"),
    _("phone", "+7 495 123-45-67"), _("phone", "8 (495) 123-45-67"), _("phone", "8-800-555-35-35"),
    _("phone", "тел. +7 (912) 345-67-89", "+7 (912) 345-67-89"), _("phone", "8 912 345 67 89"),
    _("phone", "手机：13812345678", "13812345678"), _("phone", "电话：010-12345678", "010-12345678"),
    _("phone", "138-0013-8000"), _("phone", "请拨打 138 0013 8000。", "138 0013 8000"), _("phone", "0755-12345678"),
    _("phone", "هاتف: ٠١٢٣٤٥٦٧٨٩", "٠١٢٣٤٥٦٧٨٩"), _("phone", "+٩٦٦ ٥٠ ١٢٣ ٤٥٦٧"),
    _("phone", "تلفن: ۰۲۱-۱۲۳۴۵۶۷۸", "۰۲۱-۱۲۳۴۵۶۷۸"), _("phone", "電話 ０３-１２３４-５６７８", "０３-１２３４-５６７８"),
    _("phone", "03-1234-5678"), _("phone", "090-1234-5678"), _("phone", "+81 3-1234-5678"),
    _("phone", "010-1234-5678"), _("phone", "+91 98765 43210"), _("phone", "098765 43210"),
    _("phone", "01632 960001"), _("phone", "+44 7700 900129"), _("phone", "0171-1234567"),
    _("phone", "+49 (0)30 901820"), _("phone", "06 12 34 56 78"), _("phone", "+39 06 1234 5678"),
    _("phone", "+34 912 345 678"), _("phone", "móvil 612 34 56 78", "612 34 56 78"),
    _("phone", "020-1234567"), _("phone", "06-12345678"), _("phone", "(02) 5550 1234"),
    _("phone", "0491 570 006"), _("phone", "+61 2 5550 1234"), _("phone", "(650) 253-0000"),
    _("phone", "650.253.0000"), _("phone", "tel:+1-201-555-0123", "+1-201-555-0123"),
    _("phone", "+1 650-253-0000 ext. 12", "+1 650-253-0000"), _("phone", "+52 55 1234 5678"),
    _("phone", "0212 123 45 67"), _("phone", "+48 22 123 45 67"), _("phone", "08-123 456 78"),
    _("phone", "044 123 45 67"), _("phone", "+852 2123 4567"), _("phone", "03-123-4567"),
    _("phone", "+380 44 123 4567"), _("phone", "+234 803 123 4567"), _("phone", "0722 123456"),
    _("phone", "024 1234 5678"), _("phone", "+971 4 123 4567"), _("phone", "+353 1 234 5678"),
    _("phone", "Telefon: 22 12 34 56", "22 12 34 56"), _("phone", "puh. 040 123 4567", "040 123 4567"),
    _("phone", "Tlf 912 34 567", "912 34 567"), _("phone", "телефон 495 123 45 67", "495 123 45 67"),
    # cards (ISO/IEC 7812)
    _("credit_card", "5105 1051 0510 5100"), _("credit_card", "378282246310005"), _("credit_card", "6011 0009 9013 9424"),
    _("credit_card", "30569309025904"), _("credit_card", "3566002020360505"), _("credit_card", "cc:4012888888881881;", "4012888888881881"),
    _("credit_card", "6200000000000005"), _("credit_card", "5555-5555-5555-4444"),
    _("credit_card", f"4242{_NB}4242{_NB}4242{_NB}4242"), _("credit_card", "3056 930902 5904"),
    # accounts (ISO 13616)
    _("iban", "de89 3704 0044 0532 0130 00"), _("iban", "DE89-3704-0044-0532-0130-00"), _("iban", "gb29nwbk60161331926819"),
    _("iban", "IT60X0542811101000000123456"), _("iban", "BE68 5390 0754 7034"), _("iban", "AT61 1904 3002 3457 3201"),
    _("iban", "PL61 1090 1014 0000 0712 1981 2874"), _("iban", "IBAN:FI2112345600000785", "FI2112345600000785"),
    _("iban", "MT84MALT011000012345MTLCAST001S"), _("iban", "BR1800360305000010009795493C1"),
    _("iban", f"FR14{_NB}2004{_NB}1010{_NB}0505{_NB}0001{_NB}3M02{_NB}606"), _("iban", "Se45 5000 0000 0583 9825 7466"),
    # identity numbers
    _("br_cpf", "CPF 52998224725", "52998224725"), _("br_cpf", "CPF: 111444777-35", "111444777-35"),
    _("us_ssn", "078-05-1120"), _("us_ssn", "SSN 219 09 9999", "219 09 9999"), _("us_ssn", "Social Security Number: 219099999", "219099999"),
    _("uk_nino", "AA 01 23 44 B"), _("uk_nino", "NI no. ab123456c", "ab123456c"), _("uk_nino", "AB-12-34-56-C"),
    _("in_aadhaar", "3675 9834 6016"), _("in_aadhaar", "4991-1866-5246"), _("in_aadhaar", "Aadhaar: 754829301659", "754829301659"),
    _("cn_id", "11010519491231002x"), _("cn_id", "440524188001010014"), _("es_dni", "12345678-Z"),
    _("es_dni", "DNI: 12.345.678-Z", "12.345.678-Z"), _("es_dni", "X-1234567-L"), _("es_dni", "Y1234567X"),
    _("fr_nir", "1 84 12 76 451 089 46"), _("it_cf", "cf mrtmtt25d09f205z", "mrtmtt25d09f205z"),
    # keys, by what their issuers document
    _("secret", "Authorization: Bearer " + _MIX, _MIX), _("secret", "authorization: bearer " + "mF_9.B5f-4.1JqM" + "xyz0", "mF_9.B5f-4.1JqM" + "xyz0"),
    _("secret", "-H 'Authorization: Token " + _H40 + "'", _H40), _("secret", "Authorization: Basic " + "QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
    _("secret", "AccountName=x;AccountKey=" + _B64 + ";", _B64), _("secret", "X-Api-Key: " + _H32, _H32),
    _("secret", "sk-proj-" + _MIX + "x_y-" + _MIX), _("secret", "sk-ant-api03-" + _MIX + _MIX),
    _("secret", "GOCSPX-" + _MIX[:28]), _("secret", "dop_v1_" + _H64), _("secret", "shpat_" + _H32),
    _("secret", "sq0atp-" + _MIX[:22]), _("secret", "dapi" + _H32), _("secret", "lin_api_" + _MIX + "Q7r8S9t0"),
    _("secret", "PMAK-" + _H32[:24] + "-" + _H32 + "ab"), _("secret", "NRAK-" + _MIX[:27].upper()),
    _("secret", "110201543:AAHdqTcvCH1" + "vGWJxfSeofSAs0K5PALDsaw"), _("secret", "rubygems_" + _H64[:48]),
    _("secret", "dckr_pat_" + _MIX[:27]), _("secret", "AGE-SECRET-KEY-1" + "QL3Z7HJY54PW3HYWW5AYYFG7ZQGVC7W3J2ELW8ZMRJ2KG5SFN9AQ".ljust(58, "Q")),
    _("secret", "hvs." + _MIX + _MIX[:10]), _("secret", "key-" + _H32), _("secret", "SK" + _H32),
    _("secret", "https://discord.com/api/webhooks/123456789012345678/" + _MIX + _MIX + "abcd", "discord.com/api/webhooks/123456789012345678/" + _MIX + _MIX + "abcd"),
    _("secret", "sk_test_" + _MIX[:24]), _("secret", "whsec_" + _MIX), _("secret", "ghs_" + _MIX + "Wxyz"),
    _("secret", "glptt-" + _H40), _("secret", "xapp-1-A0123-4567-" + _H32), _("secret", "xai-" + _MIX + _MIX + _MIX[:16]),
    _("secret", "r8_" + _MIX + "Wxyz12"[:5]), _("secret", "gsk_" + _MIX + _MIX[:20]), _("secret", "pplx-" + _MIX + _MIX[:16]),
    _("secret", "https://api.example.com/v1?api_key=" + _H32 + "&q=x", _H32), _("secret", "SharedAccessSignature=sv=2022&sig=" + "k3bQ%2Bf9hZ0a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p%3D", "k3bQ%2Bf9hZ0a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p%3D"),
    _("secret", "password: hunter2Secret1", "hunter2Secret1"), _("secret", "export DB_PASSWORD=Tr0ub4dor-3", "Tr0ub4dor-3"),
    _("secret", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r\n-----END OPENSSH PRIVATE KEY-----"),
    _("secret", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQPGBF\n-----END PGP PRIVATE KEY BLOCK-----"),
    _("secret", "mysql://root:S3cr3tPw@10.0.0.5/db", "root:S3cr3tPw"), _("secret", "AWS_SESSION_TOKEN=" + _MIX + _MIX + "//ab=", _MIX + _MIX + "//ab="),
    _("secret", "pk_live_x and rk_test_" + _MIX[:24], "rk_test_" + _MIX[:24]), _("secret", "figd_" + _MIX + "_abc-1234"),
)  # fmt: skip

NOTHING = (
    # versions, sections, object identifiers, addresses of no one
    "10.0.19045.3803 is Windows 10", "App version: 2.14.3.1", "MariaDB 10.6.12.0-log", "kernel 5.15.0.91-generic",
    "Adobe Reader 11.0.10.32", "chapter 3.2.1.4 says", "§ 4.1.2.3", "Sec. 12.5.1.2", "5.1.2.3 Requirements for drivers",
    "Figure 2.3.1.4", "see Table 7.2.3.4:", "nuget Foo.Bar 4.5.6.7", "Version=4.0.0.0, Culture=neutral",
    "file version 6.3.9600.17031", "1.3.6.1.4.1.9.9.42", "OID 2.5.29.15.1", "1.2.840.113549.1.1.11", "{iso(1) 3 14 3.2.26.5}",
    "the object identifier 1.0.8802.1", "2.16.840.1.101.3.4", "203.0.113.5 is for books", "198.51.100.7", "netmask 255.255.252.0",
    "2001:db8:85a3::8a2e:370:7334", "10:20:30:40", "00:1A:2B:3C:4D:5E", "172.16.254.1", "169.254.10.20", "fd12:3456:789a:1::1",
    "Annex 3.1.4.2 (normative)", "3.1.4.1 General 3.1.4.2 Scope", "jre-8.0.3520.9", "Chrome 114.0.5735.199", "v4l-2.1.0.3", "Rev. 2.0.1.7",
    "(4.3.2.1) see above", "libfoo.so.1.2.3.4", "torchaudio==2.0.2.1", "go to 6.1.3.2 and 6.1.3.3", "::1 and ::", "::ffff:10.0.0.1",
    # runs of digits
    "12 34 56 78 90", "01 02 03 04 05 06", "drawn: 07 12 23 34 41 45", "51 Franklin Street, Boston, MA 02110-1301, USA",
    "Cambridge, MA 02139-4307", "ZIP 90210-1234", "MA 02111-1307 USA", "75008 Paris", "D-10115 Berlin", "SW1A 2AA",
    "ISBN-13: 978 3 16 148410 0", "978-0-13-468599-1", "ISBN 0 19 852663 6", "0-06-123456-7 (ISBN)", "2024-01-02 03:04:05",
    "2024/12/31-2025/01/05", "01.02.2024 10:30", "pages 100-200 300-400", "1.234.567,89", "52.5200, 13.4050", "40.7128 -74.0060",
    "-33.8688 151.2093", "3.1415926535", "0.0001 0.0002", "matrix 010 020 030 040", "bytes 00 11 22 33 44 55", "2020-21 2021-22 2022-23",
    "scores 3-0 2-1 0-0 4-2", "10-20-30-40", "chmod 0755 0644 0600", "uid=1000 gid=1000", "ports 8080-8090", "issue #123456789",
    "1609459200", "1609459200.123456", "order 100-2345678-9012345", "EIN 12-3456789", "CAS 7732-18-5", "CVE-2021-44228",
    "300 400 500 600", "1 2 3 4 5 6 7 8 9 10", "2,147,483,647", "0 100 200 300 400", "12:00-13:00, 14:00-15:00", "0800-1700 hours",
    "1980-1990 2000-2010", "20-30-40 fertilizer", "08/15/2023 09:30", "100 000 000 000", "ISO 9899:1999", "in 2001 2002 2010",
    "years 2000 2001 2007", "2000 2004 2016", "Copyright 1998 1999 2000 2001", "(c) 1991, 1999 Free Software", "02 03 05 07 11 13",
    "00 01 02 03 04 05 06 07", "0 1 1 2 3 5 8 13 21 34", "rows 021 022 023 024 025", "01-02-03-04-05", "03 10 17 24 31", "04/05/06 07:08",
    "0.12 0.34 0.56", "11 22 33 44 55 66 77", "05.06.07.08.09.10", "1 000 000", "1920x1080 1280x720", "a 02 04 06 08 10 table",
    "555 1234 5678 90", "4111 1111 1111 1110", "5105105105105101", "1234 5678 9012", "2018 2019 2020", "13800", "000-00-0000", "123 45 678",
    # what looks like an address
    "@import url(a.css)", "a@b", "foo@bar.py", "x@y.tar.gz", "logo@2x.jpg", "@user.name said", "ssh git@gitlab.com:foo/bar",
    "root@host:~#", "@angular/core@12.0.0", "P@ssw0rd", "he is at home. com", "array[at]index", "tokens at 3.5 dot", "look at this dot product",
    "meet at noon", "Look AT the DOT", "f(at)g", "dot [dot] matrix", "x@self.weights", "np.a@np.b", "user@domain.local", "@media (min-width)",
    # accounts
    "DE89 3704 0044 0532 0130 01", "at61 roads 1904 3002", "gb82 west 1234 5698 7654 33", "GB29NWBK60161331926818", "no93 8601 1117 948",
    # keys
    "Authorization: Bearer <token>", "Authorization: Bearer $TOKEN", "the bearer of good news", "Authorization: Bearer YOUR_ACCESS_TOKEN",
    "AccountKey=<your-account-key>;", "api_key: YOUR_API_KEY", "password: ********", "password: required", "token: string", "Basic authentication",
    "sha256:" + _H64, "sha512-" + _B64, "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUA", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "key-value store", "commit " + _H40, "etag: " + _H32, "X-Request-Id: " + _H32, "password: str = None", "Password: the 8th character",
    "SKU 1234567890", "key=value1&other=2", "token=abc", "sig=none", "Authorization: Basic {credentials}", "secret: !ENV x1", "SKELETON",
    "gsk_", "password: ${DB_PASS_1}", "passwords: 12345678 of them", "authorization: bearer authentication", "?key=name&api_key=",
)  # fmt: skip


def held_out(text: str) -> bool:
    """Whether a line is of the half that patterns were made without."""
    return hashlib.sha256(text.encode()).digest()[0] % 2 == 1


LINES = [(text, tuple(found)) for text, *found in FOUND]
LINES += [(text, ()) for text in NOTHING]
DEVELOPMENT = [line for line in LINES if not held_out(line[0])]
HELD_OUT = [line for line in LINES if held_out(line[0])]
