"""Patterns of personal data and secrets, which `personal_data.py` uses.

Sources: the numbering plans of ITU E.164 and of the countries named; ISO/IEC 7812 for
who issues a card; the documentation of those who issue keys.
"""

import re
from collections.abc import Callable

from llm.text import checksums

# Endings of addresses: any country, and the general ones of IANA's root zone, but for
# those that code has behind a dot (x@w.data), and what else has the form of an address
# (x@w.grad, icon@2x.png). Those of other scripts, countries too.
_GENERAL = (
    "BEGIN ICANN DOMAINS=== aaa aarp abb abbott abbvie abc able abogado abudhabi "
    "academy accenture accountant accountants aco actor ads adult aeg aero aetna "
    "afl africa agakhan agency aig airbus airforce airtel akdn alibaba alipay "
    "allfinanz allstate ally alsace alstom amazon americanexpress americanfamily "
    "amex amfam amica amsterdam analytics android anquan anz aol apartments app "
    "apple aquarelle arab aramco archi army arpa art arte asda asia associates "
    "athleta attorney auction audi audible audio auspost author auto autos aws axa "
    "azure baby baidu banamex band bank barcelona barclaycard barclays barefoot "
    "bargains baseball basketball bauhaus bayern bbc bbt bbva bcg bcn beats beauty "
    "beer bentley berlin best bestbuy bet bharti bible bid bike bing bingo bio biz "
    "black blackfriday blockbuster blog bloomberg blue bms bmw bnpparibas boats "
    "boehringer bofa bom bond boo book booking bosch bostik boston bot boutique "
    "bradesco bridgestone broadway broker brother brussels build builders business "
    "buy buzz bzh cab cafe cal calvinklein cam camera camp canon capetown capital "
    "capitalone car caravan cards care career careers cars casa cash casino "
    "catering catholic cba cbn cbre center ceo cern cfa cfd chanel channel charity "
    "chase chat cheap chintai christmas chrome church cipriani circle cisco citadel "
    "citi citic city claims cleaning click clinic clinique clothing cloud club "
    "clubmed coach codes coffee college cologne com commbank community company "
    "compare computer comsec condos construction consulting contact contractors "
    "cooking cool coop corsica country coupon coupons courses cpa credit creditcard "
    "creditunion cricket crown crs cruise cruises cuisinella cymru cyou dad dance "
    "dating datsun dclk dds deal dealer deals degree delivery dell deloitte delta "
    "democrat dental dentist desi design dev dhl diamonds diet digital direct "
    "directory discount discover dish diy dnp docs doctor dog domains download "
    "drive dtv dubai dunlop dupont durban dvag dvr earth eat eco edeka edu "
    "education email emerck energy engineer engineering enterprises epson equipment "
    "ericsson erni esq estate eurovision eus events exchange expert exposed express "
    "extraspace fage fail fairwinds faith family fan fans farm farmers fashion fast "
    "fedex feedback ferrari ferrero fidelity fido film final finance financial fire "
    "firestone firmdale fish fishing fit fitness flickr flights flir florist "
    "flowers fly food football ford forex forsale forum foundation fox free "
    "fresenius frl frogans frontier ftr fujitsu fun fund furniture futbol fyi gal "
    "gallery gallo gallup game games gap garden gay gbiz gdn gea gent genting "
    "george ggee gift gifts gives giving glass gle global globo gmail gmbh gmo gmx "
    "godaddy gold goldpoint golf goo goodyear goog google gop got gov grainger "
    "graphics gratis green gripe grocery group gucci guge guide guitars guru hair "
    "hamburg hangout haus hbo hdfc hdfcbank health healthcare help helsinki hermes "
    "hiphop hisamitsu hitachi hiv hkt hockey holdings holiday homedepot homegoods "
    "homes homesense honda horse hospital host hosting hot hotels hotmail house how "
    "hsbc hughes hyatt hyundai ibm icbc ice icu ieee ifm ikano imamat imdb immo "
    "immobilien inc industries infiniti info ing ink institute insurance insure int "
    "international intuit investments ipiranga irish ismaili ist istanbul itau itv "
    "jaguar jcb jeep jetzt jewelry jio jll jmp jnj jobs joburg jot joy jpmorgan "
    "jprs juegos juniper kaufen kddi kerryhotels kerryproperties kfh kia kids kim "
    "kindle kitchen kiwi koeln komatsu kosher kpmg kpn krd kred kuokgroup kyoto "
    "lacaixa lamborghini lamer lancaster land landrover lanxess lasalle lat latino "
    "latrobe law lawyer lds lease leclerc lefrak legal lego lexus lgbt lidl life "
    "lifeinsurance lifestyle lighting like lilly limited limo lincoln link live "
    "living llc llp loan loans locker locus lol london lotte lotto love lpl "
    "lplfinancial ltd ltda lundbeck luxe luxury madrid maif maison makeup man "
    "management mango market marketing markets marriott marshalls mattel mba "
    "mckinsey med media meet melbourne meme memorial men menu merck merckmsd miami "
    "microsoft mil mini mint mit mitsubishi mlb mls mma mobi mobile moda moe moi "
    "mom monash money monster mormon mortgage moscow moto motorcycles movie msd mtn "
    "mtr museum music nab nagoya name navy nba nec net netbank netflix network "
    "neustar news nextdirect nexus nfl ngo nhk nico nike nikon ninja nissan nissay "
    "nokia norton now nowruz nowtv nra nrw ntt nyc obi observer office okinawa "
    "olayan olayangroup ollo omega one ong onion onl online ooo oracle orange org "
    "organic origins osaka otsuka ott ovh page panasonic paris pars partners parts "
    "party pay pccw pet pfizer pharmacy phd philips phone photo photography photos "
    "physio pics pictet pictures pid pin ping pink pioneer pizza place playstation "
    "plumbing plus pnc pohl poker politie porn pramerica praxi press prime pro prod "
    "productions prof progressive promo properties property protection pru "
    "prudential pub pwc qpon quebec quest racing radio realestate realtor realty "
    "recipes red redstone redumbrella rehab reise reisen reit reliance ren rent "
    "rentals repair report republican rest restaurant review reviews rexroth rich "
    "richardli ricoh ril rio rip rocks rodeo rogers room rsvp rugby ruhr rwe ryukyu "
    "saarland safe safety sakura sale salon samsclub samsung sandvik "
    "sandvikcoromant sanofi sap sarl sas save saxo sbi sbs scb schaeffler schmidt "
    "scholarships school schule schwarz science scot seat secure security seek "
    "sener services seven sew sex sexy sfr shangrila sharp shell shia shiksha shoes "
    "shop shopping shouji silk sina singles site ski skin sky skype sling smart "
    "smile sncf soccer social softbank software sohu solar solutions song sony soy "
    "spa space sport spot srl stada staples star statebank statefarm stc stcgroup "
    "stockholm storage store stream studio study style sucks supplies supply "
    "support surf surgery suzuki swatch swiss sydney systems tab taipei talk taobao "
    "target tatamotors tatar tattoo tax taxi tci tdk team tech technology tel "
    "temasek tennis teva thd theater theatre tiaa tickets tienda tips tires tirol "
    "tjmaxx tjx tkmaxx tmall today tokyo tools top toray toshiba total tours town "
    "toyota toys trade trading training travel travelers travelersinsurance trust "
    "trv tube tui tunes tushu tvs ubank ubs unicom university uno uol ups vacations "
    "vana vanguard vegas ventures verisign versicherung vet viajes video vig viking "
    "villas vin vip virgin visa vision viva vivo vlaanderen vodka volvo vote voting "
    "voto voyage wales walmart walter wang wanggou watch watches weather "
    "weatherchannel webcam weber website wed wedding weibo weir whoswho wien wiki "
    "williamhill win windows wine winners wme wolterskluwer woodside work works "
    "world wow wtc wtf xbox xerox xihuan xin xxx xyz yachts yahoo yamaxun yandex "
    "yodobashi yoga yokohama you youtube yun zappos zara zero zone zuerich"
)
_SCRIPTS = (
    "vermögensberater vermögensberatung ελ ευ бг бел дети ею католик ком мкд мон "
    "москва онлайн орг рус рф сайт срб укр қаз հայ ישראל קום ابوظبي ارامكو "
    "الاردن البحرين الجزائر السعودية السعوديه السعودیة السعودیۃ العليان المغرب "
    "اليمن امارات ايران ایران بارت بازار بيتك بھارت تونس سودان سوريا سورية شبكة "
    "عراق عرب عمان فلسطين قطر كاثوليك كوم مصر مليسيا موريتانيا موقع همراه "
    "پاكستان پاکستان ڀارت कॉम नेट भारत भारतम् भारोत संगठन বাংলা ভারত ভাৰত ਭਾਰਤ "
    "ભારત ଭାରତ இந்தியா இலங்கை சிங்கப்பூர் భారత్ ಭಾರತ ഭാരതം ලංකා คอม ไทย ລາວ გე "
    "みんな アマゾン クラウド グーグル コム ストア セール ファッション ポイント "
    "世界 中信 中国 中國 中文网 亚马逊 企业 佛山 信息 健康 八卦 公司 公益 台湾 "
    "台灣 商城 商店 商标 嘉里 嘉里大酒店 在线 大拿 天主教 娱乐 家電 广东 微博 "
    "慈善 我爱你 手机 招聘 政务 政府 新加坡 新闻 时尚 書籍 机构 淡马锡 游戏 澳門 "
    "澳门 点看 移动 组织机构 网址 网店 网站 网络 联通 臺灣 谷歌 购物 通販 集团 "
    "電訊盈科 飞利浦 食品 餐厅 香格里拉 香港 닷넷 닷컴 삼성 한국"
)
ENDINGS = frozenset([*_GENERAL.split(), *_SCRIPTS.split()])
NO_COUNTRIES = {"gz", "xz", "js", "db"}  # that files end in
# Vowel signs and the like, which are no letters to `\w`.
_MARKS = (
    "\u0300-\u036f\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u0e31-\u0e4e\u0eb1-\u0ecd"
    "\u1000-\u109f\u1780-\u17d3"
)
LOCAL = re.compile(rf"[\w.+%'’{_MARKS}-]{{1,64}}\Z")
# The end of a local part behind letters of a script without spaces: only these may be
# the words before it.
PLAIN_LOCAL = re.compile(r"[A-Za-z0-9.+%'’_-]{1,64}\Z")
_LABEL = rf"[^\W_](?:[^\W_]|[{_MARKS}-]){{0,62}}"
_END = rf"(xn--[A-Za-z0-9-]{{2,59}}|[^\W\d_](?:[^\W\d_]|[{_MARKS}]){{1,24}})"
DOMAIN = re.compile(rf"(?:{_LABEL}\.)+{_END}(?![\w(-]|\.\w)")
# What hides an address: jane [at] example [dot] com, jane AT example DOT com.
_DOT = r"(?: ?[\[({<] ?(?:dot|DOT|Dot|punkt|\.) ?[\])}>] ?|\.)"
HIDDEN_AT = re.compile(r"[\[({<] ?(?:at|AT|At|ät|@) ?[\])}>] ?")
HIDDEN_DOMAIN = re.compile(rf"(?:{_LABEL}{_DOT})+([A-Za-z]{{2,24}})(?![\w(-]|\.\w)")
SPELLED = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64} (?:at|AT) [A-Za-z0-9-]{2,63}"
    r"(?: (?:dot|DOT) [A-Za-z0-9-]{2,63})? (?:dot|DOT) "
    r"(?:com|COM|org|ORG|net|NET|edu|EDU|gov|io|de|uk|fr|eu|info)(?!\w)"
)

IPV4 = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?!\.*\w|[-~+][A-Za-z])")
# An address of IPv4 within one of IPv6.
MAPPED = re.compile(
    r"(?i)(?<![\w:.])(?:::ffff:(?:0:)?|64:ff9b::)(\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3})(?!\.*\w)"
)
# Four small numbers are rather a version or a section than an address, unless something
# says so; 8.8.8.8 and the like are servers that all know.
SMALL = 64
KNOWN = frozenset({"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "4.2.2.2"})
IS_ADDRESS = re.compile(
    r"(?i)(?:\b(?:ip|ipv4|addr|address|host|server|client|nameserver|dns|gateway|from|via|"
    r"peer|remote|ping|ssh|telnet|connect(?:ed)?|inet)\b[\s:=]{0,3}(?:addr:)?[\"'\[(]{0,2}"
    r"|://|@)\Z"
)
IS_PORT = re.compile(r":\d{2,5}\b|/\d{1,2}\b")
IPV6 = re.compile(r"(?i)(?:[23][0-9a-f]{3}|f[cde][0-9a-f]{2}):[0-9a-f:]*[0-9a-f:]")
IS_VERSION = re.compile(
    r"(?i)(?:[\w.:+-]|[a-z0-9_]/|[=<>~^]=\s?|\b(?:v|ver|version|release|build|firmware|"
    r"section|sec|chapter|clause|rfc|oid|driver|rev|revision|figure|fig|table|annex|"
    r"appendix|paragraph|article|rule|kernel|identifier|chrome|firefox|nuget)s?[.:]?\s?"
    r"[\"']?|§\s?)\Z"
)

# Digits of other scripts, and spaces and hyphens of print, as patterns have them.
PLAIN = {
    **{first + n: str(n) for first in (0x660, 0x6F0, 0x966, 0xFF10) for n in range(10)},
    0xFF08: "(", 0xFF09: ")", 0xFF0B: "+", 0xFF0D: "-", 0xFF20: "@", 0xFF0E: ".",
}  # fmt: skip
NOT_PLAIN = re.compile(f"[{''.join(map(chr, PLAIN))}]")
PLAIN_MARKS = {
    **dict.fromkeys("\u00a0\u2007\u2009\u202f", " "),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"),
}
UNSPACED_LETTER = re.compile("[\u0e01-\u0e4e\u0e81-\u0ecd\u1000-\u109f\u1780-\u17d3"
                             "\u3041-\u30ff\u3400-\u9fff\uac00-\ud7a3]")  # fmt: skip
# A stretch of digits and what may stand between them: where numbers are looked for.
STRETCH = re.compile(r"\d[\d\u00a0 ().+/-]{4,}\d")
REACH = 28  # characters before such a stretch: letters, the rest of a number, `tel.`
_COUNTRY = (
    r"(?:1|7|2(?:0|7|[1-689]\d)|3(?:[0-469]|[578]\d)|4(?:[013-9]|2\d)|5(?:[1-8]|[09]\d)"
    r"|6(?:[0-6]|[7-9]\d)|8(?:[1246]|[0357-9]\d)|9(?:[0-58]|[679]\d))"
)
_GAP = r"[ \u00a0.\-]"
PHONES = (
    # +44 20 7946 0958, 0049 (0)30 123456
    re.compile(
        rf"(?<![\w+.])(?:\+|(?<!\d[ \u00a0-])00(?={_COUNTRY}{_GAP})){_COUNTRY}"
        rf"(?:(?:[ \u00a0-]|\.(?=\d\d))?/?\(?\d\)?){{6,12}}(?!{_GAP}?\d|\w)"
    ),
    # (212) 555-0123, 1-800-555-0199
    re.compile(
        rf"(?<![\w.+-])(?<!\d[ \u00a0])(?:1{_GAP})?(?:\([2-9][0-8]\d\)[ \u00a0]?|"
        rf"[2-9][0-8]\d(?P<gap>{_GAP})(?=[2-9]\d\d(?P=gap)))[2-9]\d\d{_GAP}\d{{4}}"
        rf"(?!{_GAP}?\d|\w)"
    ),
    # 06.12.34.56.78
    re.compile(r"(?<![\w.-])0[1-9](?:\.\d\d){4}(?![\w-]|\.\d)"),
    # 020 7946 0958, 030/123456, (0171) 1234567, 01 23 45 67 89
    re.compile(
        r"(?<![\w.,:/$€£-])(?<!\d[ \u00a0])(?!0\d[./-]\d\d[./-])(?!\d{5}-\d{4}(?!\d))"
        r"\(?0[1-9]\d{0,4}\)?"
        r"(?:(?: ?[/.-] ?|[ \u00a0])\d{2,8}){1,5}(?![ \u00a0./-]{0,3}\d|\w|%|[.,]\d)"
    ),
    # (11) 91234-5678, 11 98765-4321
    re.compile(
        r"(?<![\w.,:/$€£-])(?<!\d[ ])(?:\([1-9]\d\) ?9?\d{4}|[1-9]\d 9\d{4})-\d{4}"
        r"(?![ ./-]?\d|\w)"
    ),
    # 8 (495) 123-45-67, 8-800-555-35-35, 8 912 345 67 89
    re.compile(
        r"(?<![\w.,:/$€£-])(?<!\d[ ])8[ -]?(?:\([3489]\d\d\)|[3489]\d\d)[ -]?\d{3}"
        r"([ -])\d\d\1\d\d(?![ ./-]?\d|\w)"
    ),
    # 138-0013-8000, 138 0013 8000
    re.compile(r"(?<![\d.,:/$€£-])(?<!\d[ ])1[3-9]\d([ -])\d{4}\1\d{4}(?![ ./-]?\d)"),
)
# Groups of a number; tables and lotteries grow from one to the next.
GROUPS = re.compile(r"\d+")
ANY_PHONE = re.compile(r"\(?\d(?:[ \u00a0./()-]{0,2}\d){6,12}(?![\d\w])")
CALLED = re.compile(
    r"(?i)\b(?:tel|tele(?:ph|f)on[eo]?|ph|phone|mobile?|m[oó]vil|cell|fax|call|handy|"
    r"whatsapp|t[eé]l|text|sms|dial|ring|hotline|number is|tlf|tfno|tel[eé]fono|"
    r"telefonnummer|rufnummer|celular|fone|puh|gsm|тел|телефон|моб|факс|звоните|τηλ|τηλέφωνο)\b"
    r" ?[.:#]{0,2}[ \u00a0]{0,2}\Z"
    r"|(?:手机|手機|电话|電話|携帯|致电|拨打|전화|휴대폰|هاتف|جوال|تلفن|फ़ोन|फोन|โทร)"
    r"(?:号码|號碼|番号|번호)?[.:：]{0,2}[ \u00a0]{0,2}\Z"
)
CARD = re.compile(
    r"(?<![\w.-])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?"
    r"|3\d{3}([ -])\d{6}\2\d{4,5})(?![\w]|[ .-]\d)"
)
ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)"
    r"\d{12}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|62\d{14,17}|(?:6011|65\d\d|64[4-9]\d|35\d\d)\d{12}"
)
IBAN = re.compile(r"\d\d(?=[ -]?[A-Za-z0-9]{4})")
ITALIAN = re.compile(r"\d\d[A-EHLMPRSTa-ehlmprst]\d\d[A-Za-z]\d{3}[A-Za-z]\b")
NUMBERS: tuple[tuple[str, re.Pattern, Callable[[str], bool]], ...] = (
    ("us_ssn", re.compile(
        r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-])"
    ), lambda digits: True),
    ("us_ssn", re.compile(
        r"(?i)\b(?:ssn|social security(?: (?:no|number))?)[ .:#=]{1,3}"
        r"(?P<number>(?!000|666|9)\d{3}([ -]?)(?!00)\d\d\2(?!0000)\d{4})(?![\w-])"
    ), lambda digits: True),
    ("uk_nino", re.compile(
        r"\b(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]"
        r"([ -]?)\d\d\1\d\d\1\d\d[ -]?[A-D]\b"
    ), lambda number: True),
    ("uk_nino", re.compile(
        r"(?i)\b(?:nino|ni (?:no|number)|national insurance(?: (?:no|number))?)"
        r"[ .:#=]{1,3}"
        r"(?P<number>[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]( ?)\d\d\2\d\d\2\d\d ?[A-D])\b"
    ), lambda number: True),
    ("es_dni", re.compile(
        r"(?<![\w./-])(?:\d{8}|\d\d\.\d{3}\.\d{3}|[XYZ]-?\d{7})-?[A-HJ-NP-TV-Z]\b"
    ), checksums.spanish),
    ("br_cpf", re.compile(
        r"(?<![\w.-])\d{3}\.\d{3}\.\d{3}-\d\d(?![\w-])"
    ), checksums.brazilian),
    ("br_cpf", re.compile(
        r"(?i)\bcpf[ .:#=nº°]{1,5}(?P<number>\d{9}-?\d\d)(?![\w-])"
    ), checksums.brazilian),
    ("fr_nir", re.compile(
        r"(?<![\w.-])[12]( ?)\d\d\1(?:0[1-9]|1[0-2])\1(?:\d\d|2[AB])\1\d{3}\1\d{3}"
        r" ?\d\d(?![\w-])"
    ), checksums.french),
    ("in_aadhaar", re.compile(
        r"(?<![\w.-])(?<!\d )(?!(?:20\d\d[ -]){2})[2-9]\d{3}([ -])\d{4}\1\d{4}"
        r"(?![\w]|[ -]\d)"
    ), checksums.verhoeff),
    ("in_aadhaar", re.compile(
        r"(?i)\b(?:aadhaar|aadhar|uidai|uid)(?: (?:no|number))?[ .:#=]{1,3}"
        r"(?P<number>[2-9]\d{11})(?![\w-])"
    ), checksums.verhoeff),
    ("cn_id", re.compile(
        r"(?<![\w.-])[1-9]\d{5}(?:18|19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
        r"\d{3}[\dXx]\b"
    ), checksums.chinese),
)  # fmt: skip

# Keys that say whose they are: what each begins with, and the whole.
_KEYS = (
    (("AKIA", "ASIA"), r"(?<![A-Za-z0-9])A[KS]IA[A-Z0-9]{16}(?![A-Za-z0-9])"),
    (("aws_secret", "AWS_SECRET"),
     r"(?i)secret_access_key[\"']?\s{0,3}[=:]\s{0,3}[\"']?(?P<secret>[A-Za-z0-9/+]{40})\b"),
    (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"\bgh[pousr]_[A-Za-z0-9]{36,251}\b"),
    (("github_pat_",), r"\bgithub_pat_\w{60,}\b"),
    (("glpat-", "glptt-", "gldt-", "glrt-", "glsoat-", "glft-", "glcbt-", "glimt-"),
     r"\bgl(?:pat|ptt|dt|rt|soat|ft|cbt|imt)-[\w-]{20,}"),
    (("xox", "xapp-"), r"\b(?:xox[abeprs]|xapp)-[0-9A-Za-z-]{10,}"),
    (("/api/webhooks/",),
     r"discord(?:app)?\.com/api/webhooks/\d{15,20}/[\w-]{50,100}"),
    (("hooks.slack.com",), r"hooks\.slack\.com/services/T\w{6,}/B\w{6,}/\w{16,}"),
    (("AIza",), r"\bAIza[\w-]{35}(?![\w-])"),
    (("ya29.",), r"\bya29\.[\w-]{20,}"),
    (("GOCSPX-",), r"\bGOCSPX-[\w-]{20,}"),
    (("k_live_", "k_test_"), r"\b[rs]k_(?:live|test)_[0-9A-Za-z]{20,}"),
    (("whsec_",), r"\bwhsec_[A-Za-z0-9+/=]{24,}"),
    (("sq0",), r"\bsq0(?:atp|csp|idp)-[\w-]{22,}"),
    (("shpat_", "shpca_", "shppa_", "shpss_"),
     r"\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}\b"),
    (("_v1_",), r"\bdo[opr]_v1_[a-f0-9]{64}\b"),
    (("dapi",), r"\bdapi[a-f0-9]{32}\b"),
    (("lin_api_",), r"\blin_(?:api|oauth)_[A-Za-z0-9]{32,}"),
    (("PMAK-",), r"\bPMAK-[a-f0-9]{24}-[a-f0-9]{34}\b"),
    (("NRAK-",), r"\bNRAK-[A-Z0-9]{27}\b"),
    ((":AA",), r"\b\d{8,10}:AA[A-Za-z0-9_-]{32,33}(?![\w-])"),
    (("rubygems_",), r"\brubygems_[a-f0-9]{48}\b"),
    (("dckr_pat_",), r"\bdckr_(?:pat|oat)_[\w-]{20,}"),
    (("AGE-SECRET-KEY-1",), r"\bAGE-SECRET-KEY-1[A-Z0-9]{58}\b"),
    (("hvs.", "hvb.", "hvr."), r"\bhv[bsr]\.[\w-]{24,}"),
    (("key-",), r"(?<![\w-])key-[0-9a-f]{32}\b"),
    (("SK",), r"\bSK[0-9a-f]{32}\b"),
    (("xai-",), r"\bxai-[A-Za-z0-9]{60,}"),
    (("r8_",), r"\br8_[A-Za-z0-9]{37}\b"),
    (("gsk_",), r"\bgsk_[A-Za-z0-9]{40,}"),
    (("pplx-",), r"\bpplx-[A-Za-z0-9]{40,}"),
    (("figd_",), r"\bfigd_[\w-]{40,}"),
    (("ntn_",), r"\bntn_[A-Za-z0-9]{40,}"),
    (("sbp_",), r"\bsbp_[a-f0-9]{40}\b"),
    (("tskey-",), r"\btskey-[a-z]+-[A-Za-z0-9]{8,}-[A-Za-z0-9]{16,}"),
    (("ATATT3",), r"\bATATT3[\w=-]{60,}"),
    (("AccountKey=", "AccessKey="),
     r"(?:Account|SharedAccess)Key=(?P<secret>[A-Za-z0-9+/]{40,}={0,2})"),
    (("sk-",), r"(?<![\w-])sk-(?=[\w-]*\d)[A-Za-z0-9_-]{32,}"),
    (("hf_",), r"\bhf_[A-Za-z0-9]{34,}\b"),
    (("npm_",), r"\bnpm_[A-Za-z0-9]{36}\b"),
    (("pypi-",), r"\bpypi-[\w-]{50,}"),
    (("SG.",), r"\bSG\.[\w-]{22}\.[\w-]{43}"),
    (("eyJ",), r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
    (("://",), r"(?<=://)[^\s/:@?#\"'<>]{1,64}:[^\s/:@\"'<>${}]{3,64}(?=@[\w\[])"),
    (("PRIVATE KEY",),
     r"-----BEGIN (?:[A-Z]{2,9} ){0,2}PRIVATE KEY(?: BLOCK)?-----"
     r"(?:(?!-----)[\s\S]){1,20000}"
     r"(?:-----END (?:[A-Z]{2,9} ){0,2}PRIVATE KEY(?: BLOCK)?-----)?"),
)  # fmt: skip
# What a header, an address or a file of settings gives, with a digit in it.
_DIGIT = r"(?=[^\s\"'&,;]{0,127}\d)"
_KEYS += (
    (("uthorization", "UTHORIZATION"),
     r"(?i)authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?"
     rf"(?:bearer|basic|token|apikey|digest)[ \t]{{1,3}}{_DIGIT}"
     r"(?P<given>[A-Za-z0-9._~+/-]{12,1000}={0,2})"),
    (("earer ",),
     rf"\b[Bb]earer[ \t]{{1,3}}{_DIGIT}(?P<given>[\w.~+/-]{{20,1000}}={{0,2}})"),
    (("pi-", "PI-", "uth-", "UTH-"),
     r"(?i)x-(?:api|auth|access)-(?:key|token)[\"']?\s{0,3}[:=]\s{0,3}[\"']?"
     rf"{_DIGIT}(?P<given>[\w.~+/=-]{{16,256}})"),
    (("key=", "token=", "sig=", "signature=", "secret="),
     r"(?i)[?&](?:api_?key|access_token|auth_token|id_token|token|key|sig|signature|"
     rf"secret|client_secret)={_DIGIT}(?P<given>[^\s&\"'<>{{}}$]{{16,1000}})"),
)  # fmt: skip
SECRETS = tuple((begins, re.compile(whole)) for begins, whole in _KEYS)
# Others are 16 characters long, and more, and no words; few texts have that.
LONG, NO_WORD = re.compile(r"\S{16,}"), re.compile(r"\d|[a-z][A-Z]|[A-Z]{2}")
SHORT_SECRETS = tuple(
    entry for entry in SECRETS if entry[0][0] in ("://", "PRIVATE KEY", "uthorization")
)
# What a program or a file of settings gives to a name, with a letter and a digit; not
# where it is plainly to be put in ("<password1>", "${TOKEN_1}", "xxxx1") or is a path.
# A text that has none of the parts of such names needs no search.
GIVEN = re.compile(
    r"[:=>,]\s{0,3}[bru]{0,2}([\"'`])(?=[^\s\"'`]{0,127}[A-Za-z])"
    r"(?=[^\s\"'`]{0,127}\d)(?P<secret>[^\s\"'`<>{}]{8,128})\1"
)
# Behind a name and a colon, without quotes, as in YAML or a letter.
STATED = re.compile(
    r":[ \t]{1,3}(?=\S{0,127}[A-Za-z])(?=\S{0,127}\d)"
    r"(?P<secret>[^\s\"'`<>{}()\[\]$!*&,;#|%@][^\s\"'`<>{}()\[\]$,;]{7,127})(?!\S)"
)
SET = re.compile(
    r"(?<![\w$.-])(?!(?:EOS|BOS|PAD|UNK|SEP|CLS|MASK)_)[A-Z0-9_]{0,40}(?:PASSW(?:OR)?D|"
    r"SECRET|TOKEN|(?:API|ACCESS|SECRET|PRIVATE|ENCRYPTION|SIGNING|MASTER)_?KEY)"
    r"=(?!=)(?=\S{0,127}[A-Za-z])(?=\S{0,127}\d)"
    r"(?P<secret>[^\s\"'`#<>{}()$][^\s\"'`<>{}()$]{7,127})(?!\S)"
)
NAME_PARTS = (
    "assw", "ASSW", "assphr", "ASSPHR", "pwd", "PWD", "ecret", "ECRET", "oken", "OKEN",
    "_key", "_KEY", "-key", "-KEY", "apikey", "APIKEY", "Key",
)  # fmt: skip
SET_PARTS = ("PASSW", "SECRET", "TOKEN", "KEY")
# Paths and addresses, names of a program, words with a number, and what stands for one.
NO_SECRET = re.compile(
    r"(?i)(?:[.~]{0,2}/[\w.-]+){2,}/?\Z|[.~]{1,2}/|\w{1,8}://|[a-z_]\w*(?:\.[a-z_]\w*)+\Z|"
    r"(?:[a-z]+-){2,}\d{0,2}\Z|.*(?:\$\(|\.\.\.|xxx|\*\*\*|your|example|placeholder)"
)
FOR_SECRETS = re.compile(
    r"(?i)(?:passw(?:or)?d|passphrase|pwd|secret|(?:api|access|auth|secret)[_-]?token|"
    r"(?:api|access|auth|secret|private|encryption|signing|master|account)[_-]?key)"
    # Then the end of what it is written in, and a type.
    r"[\"'`]?\]?\s{0,3}(?::\s{0,2}[\w.]{1,20}\s{0,3})?[:=]?\Z"
)
CALLED_WITH = re.compile(r"\(\s{0,2}([\"'])[\w.-]{0,40}\1\Z")  # define('NAME', …
