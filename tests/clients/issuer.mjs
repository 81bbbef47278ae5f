// An issuer of OpenID Connect as others run one: the package oidc-provider over TLS, which gives programs access tokens for a
// resource. Arguments: a file with certificate and key. Prints its address.
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import Provider from 'oidc-provider';

const key = (kid, type, options) => ({ ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }), kid, use: 'sig' });
const jwks = { keys: [key('rsa', 'rsa', { modulusLength: 2048 }), key('curve', 'ec', { namedCurve: 'P-256' })] };
const pem = readFileSync(process.argv[2]);
const server = createServer({ cert: pem, key: pem });
server.listen(0, '127.0.0.1', () => {
  const issuer = `https://localhost:${server.address().port}`;
  const client = (client_id) => ({
    client_id,
    client_secret: `${client_id}-secret`,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  });
  const resources = {
    'urn:gemmad': { scope: 'ask', audience: 'gemmad' },
    'urn:other': { scope: 'ask', audience: 'other' },
    'urn:soon': { scope: 'ask', audience: 'gemmad', accessTokenTTL: 1 },
    'urn:curve': { scope: 'ask', audience: 'gemmad', jwt: { sign: { alg: 'ES256' } } },
  };
  const provider = new Provider(issuer, {
    jwks,
    clients: [client('anna'), client('ben')],
    scopes: ['ask'],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_, resource) => ({ accessTokenFormat: 'jwt', accessTokenTTL: 300, jwt: { sign: { alg: 'RS256' } }, ...resources[resource] }),
      },
    },
  });
  server.on('request', provider.callback());
  console.log(issuer);
});
