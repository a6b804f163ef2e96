"""SPEC sections 1, 3 and 5: the primitives, each in one line of the text's own notation."""

import blake3
import nacl.bindings
import nacl.exceptions
import nacl.signing
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from .encoding import CairnError

TAG_BYTES = 16
CIPHER_AES_256_GCM = 1
CIPHER_XCHACHA20_POLY1305 = 2


def H(data):
    return blake3.blake3(data).digest()


def KDF(context, material):
    return blake3.blake3(material, derive_key_context=context).digest()


def MAC(key, data):
    return blake3.blake3(data, key=key).digest()


def argon2id(passphrase, salt, memory_kib, passes, lanes):
    """Argon2id v1.3, 32 bytes out. The caller has checked the costs."""
    return Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory_kib).derive(passphrase)


def x25519(secret, public):
    """The shared secret; all zeros is an error (section 3.1 and 5)."""
    try:
        shared = nacl.bindings.crypto_scalarmult(secret, public)
    except nacl.exceptions.CryptoError:
        shared = bytes(32)
    if shared == bytes(32):
        raise CairnError("an X25519 exchange gave zero: the public key is of low order")
    return shared


def x25519_public(secret):
    return nacl.bindings.crypto_scalarmult_base(secret)


def ed25519_public(seed):
    return bytes(nacl.signing.SigningKey(seed).verify_key)


def signed_message(context, body):
    return b"cairn v1 signed" + b"\0" + context + H(body)


def verify_ed25519(public, signature, context, body, what):
    try:
        nacl.signing.VerifyKey(public).verify(signed_message(context, body), signature)
    except nacl.exceptions.CryptoError:
        raise CairnError(f"{what}: the signature does not verify") from None


def aead_open(cipher, key, nonce, sealed, associated, what):
    if len(sealed) < TAG_BYTES:
        raise CairnError(f"{what}: shorter than an authentication tag")
    try:
        if cipher == CIPHER_AES_256_GCM:
            return AESGCM(key).decrypt(nonce, sealed, associated)
        return nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, associated, nonce, key)
    except (InvalidTag, nacl.exceptions.CryptoError):
        raise CairnError(f"{what}: authentication failed") from None
