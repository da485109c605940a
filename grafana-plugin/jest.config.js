// Packages that ship ES modules only, which jest must translate.
const esModules = [
  '@grafana', '@wojtekmaj', '@react-hookz', '@ver0', 'd3', 'd3-[a-z]+', 'delaunator', 'internmap', 'robust-predicates', 'get-user-locale', 'marked',
  'memoize', 'mimic-function', 'ol', 'react-calendar', 'react-colorful', 'react-data-grid', 'rxjs', 'uuid', 'geotiff', 'quick-lru', 'rbush', 'quickselect', 'pbf', 'color-.*', 'earcut', 'quick-temp', 'lerc',
];
module.exports = {
  testEnvironment: 'jsdom',
  testTimeout: 120000, // a busy build machine is slow, not wrong
  setupFiles: ['<rootDir>/jest.globals.js'],
  setupFilesAfterEnv: ['@testing-library/jest-dom'],
  testMatch: ['<rootDir>/src/**/*.test.{ts,tsx}'],
  moduleNameMapper: { '\\.(css|svg)$': '<rootDir>/jest.asset.js', 'react-inlinesvg': '<rootDir>/jest.asset.js' },
  transform: {
    '^.+\\.(t|j|mj)sx?$|\\.mjs$': ['@swc/jest', { jsc: { target: 'es2021', parser: { syntax: 'typescript', tsx: true }, transform: { react: { runtime: 'classic' } } } }],
  },
  moduleFileExtensions: ['ts', 'tsx', 'js', 'mjs', 'json'],
  transformIgnorePatterns: [`node_modules/(?!(${esModules.join('|')})/).*(?<!\\.mjs)$`],
};
