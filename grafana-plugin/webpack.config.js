// Builds src/module.ts into the AMD module that Grafana loads. What Grafana
// itself provides stays outside of the bundle.
const path = require('path');
const CopyWebpackPlugin = require('copy-webpack-plugin');
const { version } = require('./package.json');

const provided = ['react', 'react-dom', 'rxjs', 'lodash', '@emotion/css', /^@grafana\/(ui|runtime|data)/i];
const stamp = (content) =>
  content
    .toString()
    .replaceAll('%VERSION%', version)
    .replaceAll('%TODAY%', new Date(Number(process.env.SOURCE_DATE_EPOCH ?? Date.now() / 1000) * 1000).toISOString().slice(0, 10));

module.exports = {
  context: path.join(__dirname, 'src'),
  entry: { module: './module.ts' },
  externals: provided,
  devtool: 'source-map',
  module: {
    rules: [
      {
        test: /\.tsx?$/,
        exclude: /node_modules/,
        use: {
          loader: 'swc-loader',
          options: {
            jsc: {
              target: 'es2021',
              parser: { syntax: 'typescript', tsx: true },
              transform: { react: { runtime: 'classic' } }, // hosts before React 18 lack react/jsx-runtime
            },
          },
        },
      },
    ],
  },
  output: {
    path: path.join(__dirname, 'dist'),
    filename: '[name].js',
    library: { type: 'amd' },
    publicPath: 'public/plugins/kedgeml-kedge-datasource/',
    uniqueName: 'kedgeml-kedge-datasource',
  },
  plugins: [
    new CopyWebpackPlugin({
      patterns: [
        { from: 'plugin.json', transform: stamp },
        { from: '../README.md' },
        { from: '../CHANGELOG.md' },
        { from: '../../LICENSE', to: '[name]' },
        { from: 'img', to: 'img', noErrorOnMissing: true },
        { from: '../../dashboards/*.json', to: 'dashboards/[name][ext]' },
      ],
    }),
  ],
  resolve: { extensions: ['.ts', '.tsx', '.js'] },
  performance: { maxAssetSize: 150000, hints: 'error' },
};
